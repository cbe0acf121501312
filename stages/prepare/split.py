"""The division of the rows: a function of keys, groups or times and `prepare.split.seed`.

Rows are ranked by a hash of seed and key, and each class is cut by rank. So the order of the
file does not matter, and a row that is added moves hardly any other: two versions of a table
keep most of their test rows in common, which is what makes their metrics comparable. Groups are
ranked in place of rows, and times rank themselves: the latest rows are the test rows.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.common.errors import Problem, UserError
from stages.features.schema import Array
from stages.prepare.params import Split

Rows = npt.NDArray[np.int64]
SPLITS = ("train", "validation", "test")
# A stratum of so few groups is cut together with the others.
MIN_GROUPS = 3


@dataclass(frozen=True)
class Structure:
    """Ties between the rows, each (rows,).

    `groups`: rows of equal ones stay in one split. `times`: validation rows are later than train
    rows, and test rows later than both; of groups the latest time counts. `parts`: the split of
    each row by its name; a split without a row among them gets train rows.
    """

    groups: Array | None = None
    times: npt.NDArray[np.float64] | None = None
    parts: Array | None = None


def split_rows(
    keys: Array, classes: Array | None, split: Split, structure: Structure | None = None
) -> dict[str, Rows]:
    """Row numbers of train, validation and test, ascending.

    `keys` (rows,) names the rows; `classes` (rows,) are the strata, or None for one stratum.
    Raises UserError when a split would be empty.
    """
    structure = structure or Structure()
    strata = np.asarray(np.zeros(len(keys)) if classes is None else classes, np.int64)
    every = np.arange(len(keys))
    if structure.parts is None:
        rows = _divide(every, keys, strata, (split.validation, split.test), split.seed, structure)
    else:
        rows = {name: every[structure.parts == name] for name in SPLITS}
        shares = {"validation": split.validation, "test": split.test}
        named = {name: rows[name] for name in shares if len(rows[name])}
        left = 1 - sum(shares[name] for name in named)
        validation, test = (0.0 if name in named else shares[name] / left for name in shares)
        rows = _divide(rows["train"], keys, strata, (validation, test), split.seed, structure)
        rows |= named
    for name, numbers in rows.items():
        if len(numbers) == 0:
            message = f"the split '{name}' would be empty: the table has only {len(keys)} rows"
            if structure.groups is not None:
                message += f" in {len(np.unique(structure.groups))} groups"
            raise UserError(Problem(message, key=f"prepare.split.{name}"))
    return {name: rows[name] for name in SPLITS}


def _divide(
    rows: Rows,
    keys: Array,
    strata: Rows,
    shares: tuple[float, float],
    seed: int,
    structure: Structure,
) -> dict[str, Rows]:
    """`rows` in splits of the `shares` of validation and test, each ascending."""
    units = _find_units(rows, keys, strata, seed, structure)
    num_rows = np.bincount(units.of_row)
    split_of_unit = np.zeros(len(num_rows), np.int64)
    for stratum in np.unique(units.strata):
        members = np.flatnonzero(units.strata == stratum)
        members = members[np.argsort(units.ranks[members], kind="stable")]
        ends = np.cumsum(num_rows[members])
        num_test, num_validation = _sizes(int(ends[-1]), shares)
        # The first unit with which a split has its rows is its last one.
        test = int(np.searchsorted(ends, num_test)) + 1 if num_test else 0
        taken = int(ends[test - 1]) if test else 0
        validation = test
        if num_validation:
            validation = int(np.searchsorted(ends, taken + num_validation)) + 1
        split_of_unit[members[test:validation]] = SPLITS.index("validation")
        split_of_unit[members[:test]] = SPLITS.index("test")
    split_of_row = split_of_unit[units.of_row]
    return {name: rows[split_of_row == number] for number, name in enumerate(SPLITS)}


@dataclass(frozen=True)
class _Units:
    """Rows that stay together: `of_row` (rows,) has the number of each row's unit.

    `ranks` (units,): the lowest become test rows; `strata` (units,) are divided one by one.
    """

    of_row: Rows
    ranks: Array
    strata: Rows


def _find_units(rows: Rows, keys: Array, strata: Rows, seed: int, structure: Structure) -> _Units:
    """A unit is a row, a group, or all rows of one time."""
    groups, times = structure.groups, structure.times
    if groups is None and times is None:
        return _Units(np.arange(len(rows)), _hashes(seed, keys[rows]), strata[rows])
    if groups is None:
        assert times is not None
        different, of_row = np.unique(times[rows], return_inverse=True)
        return _Units(of_row, -different, np.zeros(len(different), np.int64))
    names, of_row = np.unique(groups[rows], return_inverse=True)
    if times is not None:
        latest = np.full(len(names), -np.inf)
        np.maximum.at(latest, of_row, times[rows])
        return _Units(of_row, -latest, np.zeros(len(names), np.int64))
    num_strata = int(strata.max()) + 1
    counts = np.bincount(of_row * num_strata + strata[rows], minlength=len(names) * num_strata)
    majority = counts.reshape(len(names), num_strata).argmax(axis=1)
    if np.unique(majority, return_counts=True)[1].min() < MIN_GROUPS:
        majority[:] = 0
    return _Units(of_row, _hashes(seed, names), majority)


def _sizes(num_rows: int, shares: tuple[float, float]) -> tuple[int, int]:
    """Test and validation rows of a stratum: at least one of each, and one left for train."""
    validation, test = shares
    num_test = max(1, round(num_rows * test)) if test else 0
    num_validation = max(1, round(num_rows * validation)) if validation else 0
    while num_test + num_validation >= num_rows and max(num_test, num_validation) > 1:
        if num_test >= num_validation:
            num_test -= 1
        else:
            num_validation -= 1
    return num_test, num_validation


def _hashes(seed: int, names: Array) -> Array:
    """A number of 64 bits for each name, which another seed draws anew."""
    digests = (
        hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
        for name in names.tolist()
    )
    return np.array([int.from_bytes(digest) for digest in digests], dtype=np.uint64)
