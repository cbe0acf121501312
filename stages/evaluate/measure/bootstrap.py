"""Intervals that tell how far a metric can be trusted: the Poisson bootstrap over rows.

Each resample gives every row an independent weight, Poisson of mean 1, in place of drawing rows
with replacement (Chamandy et al., 'Estimating Uncertainty for Massive Data Streams', Google
2012). An interval says 'this model on rows like these'; the luck of training is not in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from stages.common.files import rounded
from stages.evaluate.measure.metrics import compute_metrics
from stages.evaluate.measure.predictions import Predicted
from stages.evaluate.measure.row_weights import count_equal, find_counting, take_weights
from stages.evaluate.measure.weighted_metrics import Floats, Weighted, Weights, weighted_metric

LEVEL = 0.95
RESAMPLES = 1000
# Of its own: what `seed` changes in a training, it doesn't change in how that is judged.
SEED = 0
# Weights at a time, rows times resamples: few enough for a processor's cache.
BLOCK = 1 << 19
# How many of 65,536 draws have the weight 0, 1, 2, …: Poisson's with mean exactly 1 and variance
# 1.0001. A table and 16 random bits cost a sixth of NumPy's `poisson`.
FREQUENCIES = (24109, 24110, 12055, 4018, 1004, 201, 33, 5, 1)
WEIGHTS = np.repeat(np.arange(len(FREQUENCIES), dtype=np.uint8), FREQUENCIES)
# With more undefined resamples than this, their quantiles are not those of all.
MAX_UNDEFINED = 0.05


@dataclass(frozen=True)
class Interval:
    """A value and between what it may lie, at the level `LEVEL`; None where that is not known.

    `method` is 'bootstrap', or 'wilson' for a share of rows (E. Wilson, JASA 22, 1927), which is
    right near 0 and 1 too, where resamples hardly differ.
    """

    value: float
    low: float | None = None
    high: float | None = None
    method: str | None = None


def find_intervals(
    names: Sequence[str],
    task: str,
    target: npt.NDArray[np.generic],
    predicted: Predicted,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> dict[str, Interval]:
    """Each metric with its interval; arguments as those of `compute_metrics`.

    A resample draws rows; what each counts is what it counts in the metric. Wilson's interval is
    that of as many rows of equal weight as tell as much.

    A metric has no interval when resamples say nothing about it (`max_error`), when all of them
    are equal (no row is wrong, say), or when more than 5 % don't define it.
    """
    values = compute_metrics(list(names), task, target, predicted, weights)
    rows = find_counting(weights)
    target, predicted, weights = target[rows], predicted[rows], take_weights(weights, rows)
    drawn = resample(_functions(names, task, target, predicted, weights), len(target), resamples)
    num_equal = count_equal(len(target), weights)
    return {
        name: interval_of(name, value, num_equal, drawn.get(name)) for name, value in values.items()
    }


def interval_of(name: str, value: float, num_rows: float, drawn: Floats | None) -> Interval:
    """The interval of a metric from its value in each resample; see `find_intervals`."""
    if name == "accuracy":
        return Interval(value, *wilson(value, num_rows), "wilson")
    ends = None if drawn is None else _ends(drawn)
    if ends is None or ends[0] == ends[1]:
        return Interval(value)
    return Interval(value, *ends, "bootstrap")


def paired_differences(
    names: Sequence[str],
    task: str,
    target: npt.NDArray[np.generic],
    before: Predicted,
    after: Predicted,
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> dict[str, Interval]:
    """After less before, of two predictions of the same rows, with the interval of that.

    Both sides have the same weights in each resample, so what they share cancels. The
    interval of equal predictions is from 0 to 0.
    """
    sides = (before, after)
    values = [compute_metrics(list(names), task, target, side, weights) for side in sides]
    rows = find_counting(weights)
    target, weights = target[rows], take_weights(weights, rows)
    functions = {}
    for name in names:
        first, second = (weighted_metric(name, task, target, side[rows], weights) for side in sides)
        if first is not None and second is not None:
            functions[name] = _difference(first, second)
    drawn = resample(functions, len(target), resamples)
    found: dict[str, Interval] = {}
    for name in names:
        value = rounded(values[1][name] - values[0][name])
        ends = _ends(drawn[name]) if name in drawn else None
        found[name] = Interval(value, *ends, "bootstrap") if ends else Interval(value)
    return found


def _difference(first: Weighted, second: Weighted) -> Weighted:
    return lambda weights: second(weights) - first(weights)


def _functions(
    names: Sequence[str],
    task: str,
    target: npt.NDArray[np.generic],
    predicted: Predicted,
    weights: Floats | None,
) -> dict[str, Weighted]:
    """The metrics that are resampled, by name."""
    wanted = [name for name in names if name != "accuracy"]
    found = {name: weighted_metric(name, task, target, predicted, weights) for name in wanted}
    return {name: function for name, function in found.items() if function is not None}


def resample(functions: Mapping[str, Weighted], num_rows: int, resamples: int) -> dict[str, Floats]:
    """Each function's value in each resample, (resamples,); all see the same weights."""
    parts: dict[str, list[Floats]] = {name: [] for name in functions}
    if functions:
        for weights in draw_weights(num_rows, resamples):
            for name, function in functions.items():
                parts[name].append(function(weights))
    return {name: np.concatenate(part) for name, part in parts.items()}


def draw_weights(num_rows: int, resamples: int) -> Iterator[Weights]:
    """The weights of all resamples, some at a time: (some, rows); no two calls differ."""
    random = np.random.Generator(np.random.PCG64(SEED))
    at_once = max(1, BLOCK // num_rows)
    for start in range(0, resamples, at_once):
        shape = (min(at_once, resamples - start), num_rows)
        drawn = WEIGHTS[random.integers(0, len(WEIGHTS), size=shape, dtype=np.uint16)]
        # A resample of no rows, likely only of a handful, has nothing to measure.
        drawn[~drawn.any(axis=1)] = 1
        yield drawn


def _ends(drawn: Floats) -> tuple[float, float] | None:
    """The quantiles that bound `LEVEL` of the resamples."""
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < (1 - MAX_UNDEFINED) * len(drawn):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return rounded(float(low)), rounded(float(high))


def wilson(share: float, num_rows: float) -> tuple[float, float]:
    """Wilson's score interval of a share of `num_rows` rows."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    scale = 1 + z**2 / num_rows
    middle = (share + z**2 / (2 * num_rows)) / scale
    inside = share * (1 - share) / num_rows + z**2 / (4 * num_rows**2)
    half = z * inside**0.5 / scale
    return rounded(max(0.0, middle - half)), rounded(min(1.0, middle + half))
