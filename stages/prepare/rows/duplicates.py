"""Rows that are equal in all features: kept in one split, or left out but for the first.

That is `prepare.duplicates`. A row is known by a digest of 128 bits, so the rows of a part of a
table can be told from those of another.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.counts import counted, either
from stages.common.errors import Problem, UserError
from stages.features.numbers import Rows
from stages.features.schema import Array
from stages.formats.reading import Damage
from stages.prepare.rows.split import Structure

KEY = "prepare.duplicates"
# Of the two halves of a digest.
SEEDS = (0, 1)
TEXTS = (pl.Categorical, pl.Enum)
REASON = "equal in every feature and the target to the row "

Digests = npt.NDArray[np.uint64]


def digest(table: pl.DataFrame, names: Sequence[str]) -> Digests:
    """A digest of the columns `names` of each row, (rows, 2); NaN is a gap as any other."""
    columns = [_plain(table[name]) for name in names]
    frame = pl.DataFrame(columns)
    return np.stack([frame.hash_rows(seed=seed).to_numpy() for seed in SEEDS], axis=1)


def _plain(column: pl.Series) -> pl.Series:
    """The column without what is different in two parts of one: the codes of its texts, say."""
    if column.dtype in TEXTS:
        return column.cast(pl.String)
    return column.fill_nan(None) if column.dtype.is_float() else column


def find_firsts(digests: Digests) -> Rows:
    """The number of the first row that each row is equal to, itself among them, (rows,)."""
    frame = pl.DataFrame(digests, schema=["one", "other"]).with_row_index("row")
    first = pl.col("row").min().over("one", "other")
    return frame.select(first).to_series().to_numpy().astype(np.int64)


def find_copies(firsts: Rows) -> Rows:
    """The numbers of the rows that are equal to an earlier one."""
    return np.flatnonzero(firsts != np.arange(len(firsts)))


def set_aside(firsts: Rows, rows: Rows, keys: Array, *, named: bool) -> list[Damage]:
    """The rows that are equal to an earlier one, with the reason to leave them out.

    `firsts` (rows,) are those by features and target, `rows` (rows,) the numbers of the rows in the
    source, `keys` (rows,) their names; `named`: the source has these.
    """
    return [
        Damage(int(rows[copy]), f"{REASON}{keys[firsts[copy]]}", key=keys[copy] if named else None)
        for copy in find_copies(firsts)
    ]


def tie(structure: Structure, firsts: Rows, keys: Array) -> Structure:
    """`structure` with equal rows in one group, and with them all that they are grouped with.

    `firsts` (rows,) are those by features. A group has the name of its lowest key, or group, so
    that a row without an equal one goes where it would go without this. Raises UserError where the
    split's column puts equal rows in two splits.
    """
    if structure.parts is not None:
        _stop_at_parts(structure.parts, firsts, keys)
    names = keys.astype(np.str_) if structure.groups is None else structure.groups
    known, numbers = np.unique(names, return_inverse=True)
    lowest = list(range(len(known)))

    def find(number: int) -> int:
        while lowest[number] != number:
            lowest[number] = number = lowest[lowest[number]]
        return number

    for copy in find_copies(firsts).tolist():
        one, other = sorted((find(int(numbers[copy])), find(int(numbers[firsts[copy]]))))
        lowest[other] = one
    roots = np.array([find(number) for number in range(len(known))], np.int64)
    return Structure(known[roots[numbers]], structure.times, structure.parts)


def describe(firsts: Rows, keys: Array, what: str) -> list[str]:
    """A line on the rows that are equal to an earlier one, if there are some: `what` of them."""
    copies = find_copies(firsts)
    if not len(copies):
        return []
    row, groups = int(copies[0]), len(np.unique(firsts[copies]))
    are, ones = either(len(copies), "is", "are"), counted(groups, "different one")
    return [
        f"note: {len(copies)} of {len(firsts)} rows {are} equal to an earlier one in every feature "
        f"({ones}; the first: {keys[row]} to {keys[firsts[row]]}): {what}"
    ]


def _stop_at_parts(parts: Array, firsts: Rows, keys: Array) -> None:
    apart = np.flatnonzero(parts != parts[firsts])
    if len(apart):
        row, first = int(apart[0]), int(firsts[apart[0]])
        rows = counted(len(apart), "row is", "rows are")
        message = (
            f"{rows} equal in every feature to one that prepare.split.column puts in another "
            f"split, such as the row {keys[row]} ({parts[row]}) to {keys[first]} "
            f"({parts[first]}): nothing can keep them together"
        )
        raise UserError(Problem(message, KEY, "together", ("warn", "first")))
