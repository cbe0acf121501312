"""From where on a column is said to have drifted from the one that a model was trained on.

One place for `infer`, which looks at new rows, and for the report on a change of the data. All
is relative to the training's column: a shift of the mean in its standard deviations, a spread as
a ratio of standard deviations.
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from stages.features.schema import Array, Moments

if TYPE_CHECKING:
    import polars as pl

MAX_SHIFT = 0.25
MIN_ERRORS = 4.0
MAX_SPREAD = 1.5
MIN_ROWS_OF_SPREAD = 100
# Of the rows.
MAX_UNSEEN = 0.05
# Of a constant's size, by which rounding may leave equal numbers apart.
MAX_ROUNDING = 1e-6


def mean_has_drifted(shift: float, num_rows: float) -> bool:
    """Further than 0.25 deviations, and than four standard errors: few rows alone are no drift."""
    return abs(shift) > MAX_SHIFT and abs(shift) * math.sqrt(num_rows) > MIN_ERRORS


def spread_has_drifted(spread: float, num_rows: float) -> bool:
    """1.5 times as wide, or as narrow, in 100 rows or more."""
    wide = spread > MAX_SPREAD or spread < 1 / MAX_SPREAD
    return wide and num_rows >= MIN_ROWS_OF_SPREAD


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

    def merge(self, other: "Sums") -> None:
        """Take in what another has taken in."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares

    def drift(self, num_rows: int, moments: Moments) -> list[str]:
        """The drift of the mean and of the spread, in words; `num_rows` are independent."""
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


@dataclass(frozen=True)
class Observed:
    """Some new rows of a column: its gaps, its sums, one a channel, and its unseen categories.

    `of` says what the sums are of where that is not the value itself. `unknown` are the texts that
    have words, and none that training knows.
    """

    gaps: int = 0
    sums: list[Sums] = field(default_factory=list)
    unseen: "pl.Series | None" = None
    of: str = ""
    unknown: int = 0


def _way(shift: float) -> str:
    return "above" if shift > 0 else "below"
