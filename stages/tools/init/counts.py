"""Counts over all rows of a table, which may be longer than what is looked at."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import polars as pl

from stages.common.errors import UserError
from stages.prepare.rows.keys import find_keys
from stages.prepare.table.table import Table

# Of more different values none is kept.
MAX_DISTINCT = 200_000


@dataclass
class Counts:
    """The gaps of each column, and how many different values it has; None: it was not counted."""

    num_rows: int
    gaps: dict[str, int] = field(default_factory=dict)
    distinct: dict[str, int | None] = field(default_factory=dict)


def count_all(table: Table, sample: pl.DataFrame) -> Counts:
    """Count in all rows; of `sample`, some of them, many different values need no second count."""
    counts = Counts(table.height)
    for column in sample.iter_columns():
        name, is_nested = column.name, column.dtype.is_nested()
        gaps, seen = 0, None if is_nested else pl.Series(name, [], column.dtype)
        for part in table.column_parts(name):
            values = part.drop_nulls()
            values = values.drop_nans() if part.dtype.is_float() else values
            gaps += part.len() - values.len()
            if seen is not None:
                seen = pl.concat([seen, values.unique()]).unique()
                seen = None if seen.len() > MAX_DISTINCT and not table.is_whole else seen
        counts.gaps[name] = gaps
        counts.distinct[name] = None if seen is None else seen.len()
    return counts


def is_unique(table: Table, name: str) -> bool:
    """Check whether a column has another value in every row of the table."""
    try:
        find_keys(table, name)
    except UserError:
        return False
    return True


def find_equal(table: Table, copies: Collection[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Those of pairs of columns that are equal in all rows."""
    for name, other in copies:
        parts = table.parts([name, other])
        if all(part[name].equals(part[other], check_names=False) for part in parts):
            yield name, other
