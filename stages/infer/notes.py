"""What a person should know of new rows that could be predicted all the same: gaps, drift.

A column of numbers drifts when the mean of the new rows lies more than 0.25 of the training's
standard deviation from the training's mean, and by more than four standard errors, so that few
rows alone are no drift. Its spread does when the deviation is 1.5 times that of the training, or
less than its 1.5th part, in 100 rows or more. A column of categories drifts when more than 5 % of
the rows hold a value that training has not seen. Images are looked at channel by channel. How
often each known category and each truth occurs is not compared: training keeps no record of it.
The limits stand in `stages/features/drift.py`.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from stages.features.columns import as_category, as_numeric
from stages.features.drift import MAX_UNSEEN, mean_has_drifted, spread_has_drifted
from stages.features.schema import Array, Feature, Moments, Schema, Statistics

NUM_SHOWN = 5
# More are only counted: what is kept must not grow with the file.
MAX_KEPT = 1000
# Of a constant's size, by which rounding may leave equal numbers apart.
MAX_ROUNDING = 1e-6


@dataclass
class Sums:
    """Of values relative to the training's mean, in its deviations: how many, sum, squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: Array, moments: Moments) -> None:
        """Take `values`, of any shape and without gaps, in."""
        scaled = (values.astype(np.float64) - moments.mean) / moments.deviation
        self.add_scaled(scaled, scaled.size)

    def add_scaled(self, scaled: Array, count: int) -> None:
        """Take standardised values in, of which `count` are none of the zeros of gaps."""
        exact = scaled.astype(np.float64)
        self.count += count
        self.total += float(exact.sum())
        self.squares += float((exact**2).sum())

    def drift(self, num_rows: int, moments: Moments) -> list[str]:
        """What is to be said of the mean and of the spread; `num_rows` are independent."""
        if self.count == 0 or not math.isfinite(self.squares):
            return []
        if moments.constant:
            # There is no spread to measure with; float32 holds what lies beside the mean.
            off = math.sqrt(self.squares / self.count)
            if off <= MAX_ROUNDING * abs(moments.mean):
                return []
            return [f"training had {moments.mean:.7g} in every row, and these have others"]
        shift = self.total / self.count
        spread = math.sqrt(max(0.0, self.squares / self.count - shift**2))
        said = []
        if mean_has_drifted(shift, num_rows):
            said.append(f"its mean is {abs(shift):.2g} deviations {_way(shift)} that of training")
        if spread_has_drifted(spread, num_rows):
            said.append(f"it spreads {spread:.2g} times as wide as in training")
        return said


@dataclass
class Notes:
    """Collects, chunk by chunk, what `lines` then says of all the rows together."""

    schema: Schema
    statistics: Statistics
    num_rows: int = 0
    gaps: dict[str, int] = field(default_factory=dict)
    sums: dict[str, Sums] = field(default_factory=dict)
    unseen: dict[str, set[str]] = field(default_factory=dict)
    unseen_rows: dict[str, int] = field(default_factory=dict)

    def add(self, table: pl.DataFrame, arrays: dict[str, Array]) -> None:
        """Take in rows that were encoded, with their arrays."""
        self.num_rows += table.height
        for place, feature in enumerate(self.schema.of_kind("numeric")):
            num_gaps = _count_gaps(table[feature.name])
            self.gaps[feature.name] = self.gaps.get(feature.name, 0) + num_gaps
            sums = self.sums.setdefault(feature.name, Sums())
            sums.add_scaled(arrays["numeric"][:, place], table.height - num_gaps)
        for place, feature in enumerate(self.schema.of_kind("categorical")):
            is_new = pl.Series(arrays["categorical"][:, place] == 0)
            self._add_categories(table[feature.name].filter(is_new), feature)
        for feature in self.schema.of_kind("image"):
            for channel, moments in enumerate(self.statistics.image):
                sums = self.sums.setdefault(_channel(feature, channel), Sums())
                sums.add(arrays["image"][:, channel], moments)

    def _add_categories(self, unknown: pl.Series, feature: Feature) -> None:
        new = as_category(unknown).drop_nulls()
        self.unseen_rows[feature.name] = self.unseen_rows.get(feature.name, 0) + new.len()
        kept = self.unseen.setdefault(feature.name, set())
        kept.update(new.unique().sort().head(MAX_KEPT - len(kept)))

    def lines(self) -> list[str]:
        """A line for each thing to know, in the order of the columns."""
        lines = []
        for feature in self.schema.features:
            name = feature.name
            if gaps := 0 if feature.missing else self.gaps.get(name, 0):
                lines.append(f"note: '{name}' is empty in {gaps} rows: taken as the train mean")
            if rows := self.unseen_rows.get(name, 0):
                values = sorted(self.unseen[name])
                many = f"{len(values)}" + (" or more" if len(values) == MAX_KEPT else "")
                shown = ", ".join(repr(text) for text in values[:NUM_SHOWN])
                noun = "value" if len(values) == 1 else "values"
                word = "drift" if rows > MAX_UNSEEN * self.num_rows else "note"
                lines.append(
                    f"{word}: '{name}' has {many} {noun} unseen in training, in {rows} of "
                    f"{self.num_rows} rows: {shown}"
                )
            for channel, sums in enumerate(self._sums_of(feature)):
                where = f", channel {channel}" if feature.kind == "image" else ""
                rows = self.num_rows - self.gaps.get(name, 0)
                moments = self._moments_of(feature)[channel]
                lines += [f"drift: '{name}'{where}: {said}" for said in sums.drift(rows, moments)]
        return lines

    def _sums_of(self, feature: Feature) -> list[Sums]:
        if feature.kind == "image":
            named = [_channel(feature, number) for number in range(len(self.statistics.image))]
            return [self.sums[name] for name in named if name in self.sums]
        return [self.sums[feature.name]] if feature.name in self.sums else []

    def _moments_of(self, feature: Feature) -> list[Moments]:
        """Those that `_sums_of` are relative to."""
        if feature.kind == "image":
            return self.statistics.image
        return [self.statistics.numeric[feature.name]]


def _count_gaps(column: pl.Series) -> int:
    """How many of the values are none to compute with, infinities among them."""
    if column.dtype.is_integer():
        return column.null_count()
    if column.dtype.is_float():
        return column.len() - int(column.is_finite().sum())
    return as_numeric(column, column.name).null_count()


def _channel(feature: Feature, number: int) -> str:
    return f"{feature.name}\n{number}"


def _way(shift: float) -> str:
    return "above" if shift > 0 else "below"
