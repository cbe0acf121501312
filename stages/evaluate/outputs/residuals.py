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


def mean_residual(residuals: npt.NDArray[np.float64]) -> Interval:
    """The mean of `residuals` (rows,) with Student's interval; one row has none."""
    num_rows = len(residuals)
    mean = float(residuals.mean())
    if num_rows < 2:
        return Interval(rounded(mean))
    error = float(residuals.std(ddof=1)) / num_rows**0.5
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
