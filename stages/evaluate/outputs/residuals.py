"""Slices predicted too high or too low: the mean of actual less predicted, by slice."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from stages.common.files import rounded, write_csv
from stages.evaluate.measure.bootstrap import LEVEL, Interval

COLUMNS = ("slice", "rows", "residual", "low", "high")
# As many bars as can be read.
MAX_SLICES = 40


def mean_residual(
    residuals: npt.NDArray[np.float64], weights: npt.NDArray[np.float64] | None = None
) -> Interval:
    """The mean of `residuals` (rows,), by their `weights`, with Student's interval.

    One row has none. The error of a weighted mean is that of a ratio of two sums (Cochran, Sampling
    Techniques, 1977, section 2.11); of equal weights it is that of a mean.
    """
    num_rows = len(residuals)
    mean = float(np.average(residuals, weights=weights))
    if num_rows < 2:
        return Interval(rounded(mean))
    if weights is None:
        error = float(residuals.std(ddof=1)) / num_rows**0.5
    else:
        parts = weights * (residuals - mean) / weights.sum()
        error = float(np.sqrt((parts**2).sum() * num_rows / (num_rows - 1)))
    half = float(stdtrit(num_rows - 1, (1 + LEVEL) / 2)) * error
    return Interval(rounded(mean), rounded(mean - half), rounded(mean + half), "student")


def write_residuals(path: Path, parts: Iterable[tuple[str, int, Interval]]) -> None:
    """Write a line for each of `parts` (label, rows, mean residual), at most 40.

    Those come first that are furthest from 0 even at the nearer end of their interval. Of classes,
    the header alone.
    """
    known = [part for part in parts if part[2].low is not None]
    known.sort(key=lambda part: -_surely_off(part[2]))
    lines = [(label, rows, r.value, r.low, r.high) for label, rows, r in known[:MAX_SLICES]]
    write_csv(path, COLUMNS, lines)


def _surely_off(residual: Interval) -> float:
    """The distance of the nearer end from 0; below 0 where 0 lies inside."""
    assert residual.low is not None
    assert residual.high is not None
    return max(residual.low, -residual.high)
