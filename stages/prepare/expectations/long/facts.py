"""Each column of a table of any length at a glance, from its parts: two passes, no column whole."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from stages.common.errors import shorten
from stages.prepare.expectations.column_profile import (
    MAX_WHOLE_RANGE,
    TEXTS,
    Numbers,
    Overview,
    Shown,
    are_whole,
    count_bars,
    find_edges,
    finite,
    inner_type,
    innermost,
    number_facts,
    present,
    value_facts,
)
from stages.prepare.expectations.long.pieces import pieces
from stages.prepare.expectations.pandas_frame import flatten
from stages.prepare.table.table import Table

# Of so many different values of a column it is known how often each stands there.
MAX_VALUES = 100_000
VALUE, COUNT = "value", "count"


@dataclass(frozen=True)
class Facts:
    """A column of `height` rows; `missing` are gaps and NaN.

    `has_gaps`: not all that is missing is NaN. `counts` (value, count) are the different values,
    of which some columns have too many; `ends` are the least and the greatest finite number.
    """

    height: int
    missing: int
    has_gaps: bool
    overview: Overview
    counts: pl.DataFrame | None = None
    ends: tuple[Any, Any] | None = None
    num_infinite: int = 0


def take_facts(
    table: Table, names: Collection[str], counted: Collection[str] = ()
) -> dict[str, Facts]:
    """The facts of the columns `names`; of those in `counted`, the values are counted.

    Texts are counted in any case.
    """
    takers = {name: _Taker(name, table.schema[name], name in counted) for name in names}
    for _, piece in pieces(table, names):
        for column in piece.iter_columns():
            takers[column.name].add(column)
    edges = {n: found for n, taker in takers.items() if (found := taker.edges()) is not None}
    bars = {name: np.zeros(bins, np.int64) for name, (_, bins) in edges.items()}
    for _, piece in pieces(table, edges) if edges else ():
        for column in piece.iter_columns():
            span, bins = edges[column.name]
            bars[column.name] += count_bars(finite(column), span, bins)
    return {
        name: taker.finish(tuple(map(int, bars.get(name, ())))) for name, taker in takers.items()
    }


class _Taker:
    """Takes one column in, part by part."""

    def __init__(self, name: str, dtype: pl.DataType, is_counted: bool) -> None:  # noqa: FBT001
        self._name, self._dtype = name, dtype
        self._height = self._missing = self._num_values = 0
        self._has_gaps = False
        self._ends: list[pl.Series] = []
        self._total, self._num_finite, self._is_whole = 0.0, 0, True
        inner = inner_type(dtype)
        self._is_number, self._is_time = inner.is_numeric(), inner.is_temporal()
        self._is_text = inner in TEXTS
        self._is_nested = inner != dtype
        self._of_rules = _Counts() if is_counted else None
        self._of_page = _Counts() if self._is_text and (self._is_nested or not is_counted) else None

    def add(self, column: pl.Series) -> None:
        """Take a part in."""
        values = present(column)
        self._height += column.len()
        self._missing += column.len() - values.len()
        self._has_gaps |= column.null_count() > 0
        if self._of_rules is not None:
            flat = flatten(values.to_frame()).to_series() if self._is_nested else values
            self._of_rules.add(flat)
        values = innermost(values)
        self._num_values += values.len()
        if self._of_page is not None:
            self._of_page.add(values)
        if self._is_time and values.len():
            self._ends.append(values.filter(values.is_in([values.min(), values.max()])).unique())
        if self._is_number:
            self._add_numbers(finite(column))

    def _add_numbers(self, values: Numbers) -> None:
        if not values.size:
            return
        low, high = values.min(), values.max()
        self._ends.append(pl.Series(np.array([low, high])))
        self._num_finite += values.size
        with np.errstate(over="ignore"):
            self._total += float(values.sum(dtype=np.float64))
        # It is asked of small ranges alone.
        if self._is_whole:
            is_small = float(high) - float(low) < MAX_WHOLE_RANGE
            self._is_whole = is_small and are_whole(values)

    def edges(self) -> tuple[tuple[float, float], int] | None:
        """The ends and the number of the bars, if there are any."""
        if not self._is_number or not self._ends:
            return None
        ends = pl.concat(self._ends).to_numpy()
        return find_edges(float(ends.min()), float(ends.max()), is_whole=self._is_whole)

    def finish(self, bars: tuple[int, ...]) -> Facts:
        """The facts, after the last part."""
        counts = None if self._of_rules is None else self._of_rules.finish()
        texts = counts if self._of_page is None else self._of_page.finish()
        if self._of_rules is None:
            counts = texts if not self._is_nested else None
        facts: Shown = ()
        if self._num_values == 0:
            facts = (("values", "none"),)
        elif self._is_number:
            facts = self._number_facts()
        elif self._is_time:
            ends = pl.concat(self._ends)
            facts = (("from", str(ends.min())), ("to", str(ends.max())))
        elif self._is_text and texts is None:
            facts = (("values", f"more than {MAX_VALUES:,} different"),)
        elif self._is_text and texts is not None:
            facts = value_facts(texts, self._num_values)
        overview = Overview(self._name, shorten(self._dtype), self._missing, facts, bars)
        known = (self._height, self._missing, self._has_gaps, overview, counts)
        num_infinite = self._num_values - self._num_finite if self._is_number else 0
        return Facts(*known, self._number_ends(), num_infinite)

    def _number_ends(self) -> tuple[Any, Any] | None:
        if not self._is_number or not self._ends:
            return None
        ends = pl.concat(self._ends)
        return ends.min(), ends.max()

    def _number_facts(self) -> Shown:
        infinite = self._num_values - self._num_finite
        ends = self._number_ends()
        if ends is None:
            return number_facts(None, infinite)
        low, high = ends
        return number_facts((low, self._total / self._num_finite, high), infinite)


class _Counts:
    """Counts the different values of a column, up to MAX_VALUES of them."""

    def __init__(self) -> None:
        self._held: list[pl.DataFrame] = []
        self._num_held, self._limit = 0, 0
        self._are_too_many = False

    def add(self, values: pl.Series) -> None:
        """Take in the values of a part."""
        if self._are_too_many:
            return
        found = values.alias(VALUE).value_counts(name=COUNT)
        self._held.append(found)
        self._num_held += found.height
        if self._num_held > 2 * self._limit + 10_000:
            self._join()

    def _join(self) -> None:
        joined = pl.concat(self._held).group_by(VALUE).agg(pl.col(COUNT).sum())
        self._are_too_many = joined.height > MAX_VALUES
        self._held = [] if self._are_too_many else [joined]
        self._num_held = self._limit = joined.height

    def finish(self) -> pl.DataFrame | None:
        """The values with their counts; None where there are too many."""
        if self._held:
            self._join()
        return self._held[0] if self._held else None
