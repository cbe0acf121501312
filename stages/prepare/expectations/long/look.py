"""A piece of a table as the facts of its columns need it: what can be added up, piece by piece."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from stages.prepare.expectations.column_profile import (
    MAX_WHOLE_RANGE,
    TEXTS,
    Numbers,
    are_whole,
    finite,
    inner_type,
    innermost,
    present,
)
from stages.prepare.expectations.long.pieces import Piece
from stages.prepare.expectations.pandas_frame import flatten

# Of so many different values of a column it is known how often each stands there.
MAX_VALUES = 100_000
VALUE, COUNT = "value", "count"


@dataclass(frozen=True)
class Sought:
    """All that is looked for in a column; counts of its values are for rules, or for the page."""

    is_number: bool
    is_time: bool
    is_text: bool
    is_nested: bool
    rule_counts: bool
    page_counts: bool


@dataclass(frozen=True)
class ColumnLook:
    """A column in a piece. Counts are None where they are not asked for, or of too many values."""

    height: int
    missing: int
    has_gaps: bool
    num_values: int
    rule_counts: pl.DataFrame | None
    page_counts: pl.DataFrame | None
    ends: pl.Series | None = None
    total: float = 0.0
    num_finite: int = 0
    is_whole: bool = True


def find_sought(dtype: pl.DataType, *, is_counted: bool) -> Sought:
    """All that is looked for in a column of that type; `is_counted`: rules ask for its values."""
    inner = inner_type(dtype)
    is_text, is_nested = inner in TEXTS, inner != dtype
    page_counts = is_text and (is_nested or not is_counted)
    is_number, is_time = inner.is_numeric(), inner.is_temporal()
    return Sought(is_number, is_time, is_text, is_nested, is_counted, page_counts)


def look_at_piece(sought: Mapping[str, Sought], piece: Piece) -> dict[str, ColumnLook]:
    """All that is looked for in each column of a piece."""
    return {
        column.name: look_at_column(sought[column.name], column)
        for column in piece.read().iter_columns()
    }


def look_at_column(sought: Sought, column: pl.Series) -> ColumnLook:
    """All that is looked for in a column."""
    values = present(column)
    missing, flat = column.len() - values.len(), values
    if sought.rule_counts and sought.is_nested:
        flat = flatten(values.to_frame()).to_series()
    values = innermost(values)
    known = (
        column.len(),
        missing,
        column.null_count() > 0,
        values.len(),
        _count(flat) if sought.rule_counts else None,
        _count(values) if sought.page_counts else None,
    )
    if sought.is_time and values.len():
        ends = values.filter(values.is_in([values.min(), values.max()])).unique()
        return ColumnLook(*known, ends)
    numbers = finite(column) if sought.is_number else np.zeros(0)
    if not numbers.size:
        return ColumnLook(*known)
    return ColumnLook(*known, *_look_at_numbers(numbers))


def _look_at_numbers(values: Numbers) -> tuple[pl.Series, float, int, bool]:
    low, high = values.min(), values.max()
    with np.errstate(over="ignore"):
        total = float(values.sum(dtype=np.float64))
    # It is asked of small ranges alone.
    is_whole = float(high) - float(low) < MAX_WHOLE_RANGE and are_whole(values)
    return pl.Series(np.array([low, high])), total, values.size, is_whole


def _count(values: pl.Series) -> pl.DataFrame | None:
    """The count of each value is there; None: there are more than MAX_VALUES."""
    found = values.alias(VALUE).value_counts(name=COUNT)
    return found if found.height <= MAX_VALUES else None
