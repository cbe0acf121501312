"""Each column of a table of any length at a glance, from its parts: two passes, no column whole."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.errors import shorten
from stages.parallel.mapper import Local, Mapper
from stages.prepare.expectations.column_profile import (
    Overview,
    Shown,
    count_bars,
    find_edges,
    finite,
    number_facts,
    value_facts,
)
from stages.prepare.expectations.long.look import (
    COUNT,
    MAX_VALUES,
    VALUE,
    ColumnLook,
    find_sought,
    look_at_piece,
)
from stages.prepare.expectations.long.pieces import Piece, cut_pieces
from stages.prepare.table.table import Table, mapper_for

Bars = dict[str, npt.NDArray[np.int64]]


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
    table: Table,
    names: Collection[str],
    counted: Collection[str] = (),
    mapper: Mapper | None = None,
) -> dict[str, Facts]:
    """The facts of the columns `names`; of those in `counted`, the values are counted.

    Texts are counted in any case.
    """
    takers = {name: _Taker(name, table.schema[name], name in counted) for name in names}
    own = mapper_for(table, mapper or Local())
    look = partial(look_at_piece, {name: taker.sought for name, taker in takers.items()})
    for looks in own.map(look, cut_pieces(table, list(names))):
        for name, seen in looks.items():
            takers[name].add(seen)
    edges = {n: found for n, taker in takers.items() if (found := taker.edges()) is not None}
    bars = {name: np.zeros(bins, np.int64) for name, (_, bins) in edges.items()}
    if edges:
        for counts in own.map(partial(count_piece, edges), cut_pieces(table, list(edges))):
            for name, count in counts.items():
                bars[name] += count
    return {
        name: taker.finish(tuple(map(int, bars.get(name, ())))) for name, taker in takers.items()
    }


def count_piece(edges: Mapping[str, tuple[tuple[float, float], int]], piece: Piece) -> Bars:
    """The rows of a piece in each bar of the columns that have some."""
    return {
        column.name: count_bars(finite(column), *edges[column.name])
        for column in piece.read().iter_columns()
    }


class _Taker:
    """Takes one column in, part by part, by what was seen of each."""

    def __init__(self, name: str, dtype: pl.DataType, is_counted: bool) -> None:  # noqa: FBT001
        self._name, self._dtype = name, dtype
        self._height = self._missing = self._num_values = 0
        self._has_gaps = False
        self._ends: list[pl.Series] = []
        self._total, self._num_finite, self._is_whole = 0.0, 0, True
        self.sought = find_sought(dtype, is_counted=is_counted)
        self._is_number, self._is_time = self.sought.is_number, self.sought.is_time
        self._is_text, self._is_nested = self.sought.is_text, self.sought.is_nested
        self._of_rules = _Counts() if self.sought.rule_counts else None
        self._of_page = _Counts() if self.sought.page_counts else None

    def add(self, look: ColumnLook) -> None:
        """Take a part in."""
        self._height += look.height
        self._missing += look.missing
        self._has_gaps |= look.has_gaps
        self._num_values += look.num_values
        if self._of_rules is not None:
            self._of_rules.add(look.rule_counts)
        if self._of_page is not None:
            self._of_page.add(look.page_counts)
        if look.ends is not None:
            self._ends.append(look.ends)
        self._total += look.total
        self._num_finite += look.num_finite
        self._is_whole &= look.is_whole

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

    def add(self, found: pl.DataFrame | None) -> None:
        """Take in the counts of a part; None: it has too many values by itself."""
        if found is None:
            self._are_too_many, self._held = True, []
        if found is None or self._are_too_many:
            return
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
