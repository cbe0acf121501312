"""Columns that are no features: keys, constants, copies of others, and leaks of the target."""

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.columns import as_category
from stages.features.numbers import Rows

# A name that says that a column names the rows: id, ID, customer_id, rowKey, uuid, index, no.
_KEY_NAME = re.compile(
    r"(?i:(?:.*[_\W])?(?:id|key|uuid|guid|index|idx|nr|no)|rownames?)|.*(?:Id|ID)"
)
# Of what the target alone leaves to be told, one column tells so much.
LEAK, COPY = 0.98, 0.9999
NUM_BINS = 256
# With fewer rows a column may tell the target by chance.
MIN_ROWS = 50


def is_key(column: pl.Series, rows: Rows) -> bool:
    """Check whether a column names the rows: one value each, by its name or as their number.

    `rows` (rows,) are the numbers of the rows.
    """
    if column.null_count() or not (column.dtype.is_integer() or column.dtype == pl.String):
        return False
    if column.n_unique() < column.len():
        return False
    return _KEY_NAME.fullmatch(column.name.strip()) is not None or counts_up(column, rows)


def counts_up(column: pl.Series, rows: Rows) -> bool:
    """Check whether the values go up by one from row to row, from 0 or 1 on.

    `rows` (rows,) are the numbers of the rows.
    """
    if not column.dtype.is_integer() or column.is_empty() or column[0] not in (0, 1):
        return False
    return not column.null_count() and bool((column - column[0] == pl.Series(rows)).all())


def names_hardly_repeat(column: pl.Series) -> bool:
    """Check whether a column of categories has another one in more than half of its rows."""
    names = as_category(column).drop_nulls()
    return names.n_unique() > names.len() / 2


def find_copies(table: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Columns that hold in each row what an earlier one holds, with that one."""
    seen: dict[tuple[object, int], list[str]] = {}
    for column in table.iter_columns():
        if column.dtype.is_nested():
            continue
        digest = (column.dtype, int(column.hash().sum()))
        for name in seen.setdefault(digest, []):
            if table[name].equals(column, check_names=False):
                yield column.name, name
                break
        else:
            seen[digest].append(column.name)


def tells_target(column: pl.Series, target: pl.Series, *, is_class: bool) -> float:
    """The share of the target that one column alone tells: 0 nothing, 1 all of it.

    Learned from the even rows as the most frequent class, or the mean, of the rows with its value
    (of numbers, in one of NUM_BINS bins), and measured on the odd rows against always saying the
    same.
    """
    if column.len() < MIN_ROWS or column.dtype.is_nested():
        return 0.0
    bins = _bins(column)
    if bins is None:
        return 0.0
    frame = pl.DataFrame({"bin": bins, "y": as_category(target) if is_class else target})
    even = pl.int_range(pl.len()) % 2 == 0
    learn, judge = frame.filter(even), frame.filter(~even)
    answer = pl.col("y").mode().first() if is_class else pl.col("y").mean()
    told = judge.join(learn.group_by("bin").agg(answer.alias("told")), on="bin", how="left")
    fallback = learn.select(answer).item()
    said = told["told"].fill_null(fallback)
    if is_class:
        wrong, base = (said != told["y"]).sum(), (told["y"] != fallback).sum()
    else:
        wrong, base = _squares(told["y"] - said), _squares(told["y"] - fallback)
    return 1 - wrong / base if base else 0.0


def _squares(values: pl.Series) -> float:
    numbers: npt.NDArray[np.float64] = values.cast(pl.Float64).drop_nulls().to_numpy()
    return float((numbers**2).sum())


def _bins(column: pl.Series) -> pl.Series | None:
    """The number of each row's value, or of its bin; None where nearly each row has its own."""
    if column.dtype.is_numeric() or column.dtype.is_temporal():
        rank = column.rank("dense").fill_null(0)
        highest = int(rank.to_numpy().max(initial=0))
        return rank if highest <= NUM_BINS else (rank * NUM_BINS) // (highest + 1)
    values = as_category(column)
    if values.n_unique() > column.len() / 2:
        return None
    return values.rank("dense").fill_null(0)
