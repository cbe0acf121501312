"""Counts over all rows of a table, which may be longer than what is looked at."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from stages.common.errors import UserError
from stages.parallel.thread_map import map_in_order, num_threads
from stages.prepare.rows.keys import find_keys
from stages.prepare.table.table import Table

# Of more different values none is kept.
MAX_DISTINCT = 200_000


@dataclass(frozen=True)
class Counts:
    """The gaps of each column, and how many different values it has; None: it was not counted."""

    num_rows: int
    gaps: dict[str, int]
    distinct: dict[str, int | None]

    def is_constant(self, name: str) -> bool:
        """Check whether a column has one value, or none; gaps beside a value tell something."""
        distinct = self.distinct[name]
        return distinct is not None and distinct + (self.gaps[name] > 0) < 2


def count_all(table: Table) -> Counts:
    """Count in all rows, several columns at a time."""
    names = table.columns
    found = list(map_in_order(lambda name: _count(table, name), names, num_threads()))
    gaps = {name: each[0] for name, each in zip(names, found, strict=True)}
    distinct = {name: each[1] for name, each in zip(names, found, strict=True)}
    return Counts(table.height, gaps, distinct)


def _count(table: Table, name: str) -> tuple[int, int | None]:
    """The gaps of a column and its different values; None where these are very many, or arrays."""
    gaps, dtype = 0, table.schema[name]
    seen = None if dtype.is_nested() else pl.Series(name, [], dtype)
    for part in table.column_parts(name):
        values = part.drop_nulls() if part.null_count() else part
        # Of thousands of columns each call of Polars counts: none is made for nothing.
        if dtype.is_float() and np.isnan(values.to_numpy()).any():
            values = values.drop_nans()
        gaps += part.len() - values.len()
        if seen is not None:
            seen = pl.concat([seen, values]).unique()
            seen = None if seen.len() > MAX_DISTINCT and not table.is_whole else seen
    return gaps, None if seen is None else seen.len()


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
