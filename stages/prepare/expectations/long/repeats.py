"""Values that stand in a table twice, of any number of rows, and exactly.

Rows are looked at a share at a time: those whose values have a hash of this share. So many passes
are made that a share fits into BUCKET_BYTES.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import polars as pl

from stages.prepare.expectations.long.pieces import pieces
from stages.prepare.expectations.pandas_frame import flatten
from stages.prepare.table.table import Table

BUCKET_BYTES = 32 << 20
# Beside its values a row has its number and a count.
ROW_BYTES = 16
MAX_FIRST = 20
COUNT, ROW = "count of rows", "number of the row"

Ignored = Literal["any_value_is_missing", "all_values_are_missing", "never"]


@dataclass(frozen=True)
class Repeats:
    """Of `num_rows` rows with values: how many values differ, how many rows have another's value.

    `first` are values that repeat, those that come first in the table, as `plain_rows` has them.
    """

    num_rows: int
    num_different: int
    num_repeated: int
    first: pl.DataFrame


def find_repeats(
    table: Table, names: list[str], ignored: Ignored = "any_value_is_missing"
) -> Repeats:
    """The repeats of values of one column or of several together; rows may be ignored."""
    if len(names) == 1 and (num_rows := _count_ascending(table, names[0])) is not None:
        none = plain_rows(table.last_row().select(names)).clear()
        return Repeats(num_rows, num_rows, 0, none)
    num_rows = num_different = num_repeated = 0
    first = []
    for found in _buckets(table, names, ignored):
        counts = found[COUNT]
        num_rows += int(counts.sum())
        num_different += found.height
        repeated = found.filter(counts > 1)
        num_repeated += int(repeated[COUNT].sum())
        # The first rows that repeat have values that come first.
        first.append(repeated.bottom_k(MAX_FIRST, by=ROW))
    earliest = pl.concat(first).bottom_k(MAX_FIRST, by=ROW).select(names)
    return Repeats(num_rows, num_different, num_repeated, earliest)


def plain_rows(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with types that pandas has, and one gap for what it takes for one."""
    flat = flatten(rows)
    floats = [pl.col(c.name).fill_nan(None) for c in flat.iter_columns() if c.dtype.is_float()]
    return flat.with_columns(floats)


def has_values(names: list[str], ignored: Ignored) -> pl.Expr:
    """The rows that are not ignored, among `plain_rows`."""
    is_there = [pl.col(name).is_not_null() for name in names]
    if ignored == "any_value_is_missing":
        return pl.all_horizontal(is_there)
    if ignored == "all_values_are_missing":
        return pl.any_horizontal(is_there)
    return pl.lit(value=True)


def _buckets(table: Table, names: list[str], ignored: Ignored) -> Iterator[pl.DataFrame]:
    """The different values, a share at a time, with their counts and first rows."""
    num_buckets = place = 0
    while place < max(1, num_buckets):
        held = []
        for start, piece in pieces(table, names):
            rows = plain_rows(piece.select(names)).with_row_index(ROW, offset=start)
            if not num_buckets:
                row_bytes = piece.estimated_size() / max(1, piece.height) + ROW_BYTES
                num_buckets = max(1, math.ceil(table.height * row_bytes / BUCKET_BYTES))
            rows = rows.filter(has_values(names, ignored))
            if num_buckets > 1:
                share = rows.select(names).hash_rows() % num_buckets
                rows = rows.filter(share == place)
            held.append(
                rows.group_by(names).agg(pl.len().cast(pl.Int64).alias(COUNT), pl.col(ROW).min())
            )
        yield pl.concat(held).group_by(names).agg(pl.col(COUNT).sum(), pl.col(ROW).min())
        place += 1


def _count_ascending(table: Table, name: str) -> int | None:
    """The number of values, if each is greater than the one before: numbers of rows, and times."""
    last, num_values = None, 0
    for part in table.column_parts(name):
        values = plain_rows(part.to_frame()).to_series().drop_nulls()
        if not values.len():
            continue
        is_ordered = values.dtype.is_numeric() or values.dtype.is_temporal()
        if not is_ordered or not (values.head(-1) < values.slice(1)).all():
            return None
        if last is not None and not values[0] > last:
            return None
        last = values[-1]
        num_values += values.len()
    return num_values
