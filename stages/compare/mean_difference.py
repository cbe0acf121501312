"""The effect of a change on a metric, whatever the rows and the seeds: a difference of means.

A metric of replica k of a side on the test rows is, apart from the truth, the luck of the rows,
the luck of the seed, and what the two do together (which rows this seed gets wrong). Between the
means of both sides over n replicas, three variances are estimated:

    rows     V: of the difference under a Poisson bootstrap of the rows, replicas as they are; both
             sides have the same weights, so what they share cancels
    seeds    S: each side's variance over its replicas / n, on these rows, summed
    shared   I: seed and rows together: the variance over replicas of their bootstrapped values
             around their own, / n, summed; V holds it and S holds it

The standard error is the root of V - I + S, so that `shared` counts once; V - I is no less than
0, and the whole no less than V, which is known from many rows where S is known from a few
seeds. (Without the - I, two sides that differ in nothing are told apart in 1 % of cases instead
of 5 %, and real differences are missed as often.) The interval is Student's t with the degrees
of freedom of Welch (Biometrika 34, 1947) and Satterthwaite (Biometrics 2, 1946): those of the
seeds, as far as the seeds matter; rows count as known exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.common.files import rounded
from stages.evaluate.measure.bootstrap import LEVEL, MAX_UNDEFINED, RESAMPLES, resample
from stages.evaluate.measure.metrics import compute_metrics
from stages.evaluate.measure.predictions import Classified, Predicted
from stages.evaluate.measure.row_weights import find_counting, take_weights
from stages.evaluate.measure.weighted_metrics import Floats, weighted_metric

# Two seeds have a variance, but its own is so large that the interval says nothing.
MIN_REPLICAS = 3


@dataclass(frozen=True)
class MeanDifference:
    """The difference of the means, after less before, and between what the true one may lie.

    `rows`, `seeds` and `shared` are the variances that the module speaks of.
    """

    before: float
    after: float
    value: float
    low: float
    high: float
    degrees: float | None
    rows: float
    seeds: float
    shared: float


def find_mean_differences(
    names: Sequence[str],
    task: str,
    target: npt.NDArray[np.generic],
    before: Sequence[Predicted],
    after: Sequence[Predicted],
    resamples: int = RESAMPLES,
    weights: Floats | None = None,
) -> dict[str, MeanDifference]:
    """The change of each metric, from the predictions of every replica of both sides.

    `target`, each of `before` and `after`, and `weights` as in `compute_metrics`. Metrics that
    resamples say nothing about (`max_error`, `ece`), or don't define, are left out. Between sides
    of which each replica predicts the same to the bit, there is no difference.
    """
    sides = [*before, *after]
    values = [compute_metrics(list(names), task, target, side, weights) for side in sides]
    rows = find_counting(weights)
    target, weights = target[rows], take_weights(weights, rows)
    found: dict[str, MeanDifference] = {}
    if len(before) == len(after) and all(map(_equal, before, after)):
        # The same trainings: what was changed has no part in them, whatever rows and seeds.
        means = {name: rounded(float(np.mean([side[name] for side in values]))) for name in names}
        moved = [n for n in names if weighted_metric(n, task, target, sides[0][rows], weights)]
        return {n: _no_difference(means[n]) for n in moved if math.isfinite(means[n])}
    for name in names:
        functions = [weighted_metric(name, task, target, s[rows], weights) for s in sides]
        known = {str(k): function for k, function in enumerate(functions) if function is not None}
        if len(known) < len(sides):
            continue
        drawn = np.array(list(resample(known, len(target), resamples).values()))
        drawn = drawn[:, np.isfinite(drawn).all(axis=0)]
        if drawn.shape[1] < (1 - MAX_UNDEFINED) * resamples:
            continue
        of_each = np.array([side[name] for side in values])
        found[name] = judge(of_each, drawn, len(before))
    return found


def judge(values: Floats, drawn: Floats, num_before: int) -> MeanDifference:
    """The change of one metric.

    `values` (replicas,) are its values, those of the replicas before first; `drawn` (replicas,
    resamples) are the same in each resample of the rows.
    """
    parts = [slice(None, num_before), slice(num_before, None)]
    (before, after), (old, new) = ([x[part] for part in parts] for x in (values, drawn))
    rows = float((new.mean(axis=0) - old.mean(axis=0)).var(ddof=1))
    seeds = [side.var(ddof=1) / len(side) for side in (before, after)]
    shared = sum(_shared(side, at) for side, at in ((old, before), (new, after)))
    variance = max(rows, max(0.0, rows - shared) + sum(seeds))
    unsure = sum(each**2 / (len(s) - 1) for each, s in zip(seeds, (before, after), strict=True))
    degrees = variance**2 / unsure if unsure > 0 else math.inf
    # Of rounded means, so that equal ones differ by 0, not by a last bit.
    means = [rounded(float(side.mean())) for side in (before, after)]
    value = means[1] - means[0]
    half = _quantile(degrees) * math.sqrt(variance)
    return MeanDifference(
        before=means[0],
        after=means[1],
        value=rounded(value),
        low=rounded(value - half),
        high=rounded(value + half),
        degrees=rounded(degrees) if math.isfinite(degrees) else None,
        rows=rounded(rows),
        seeds=rounded(float(sum(seeds))),
        shared=rounded(shared),
    )


def _equal(one: Predicted, other: Predicted) -> bool:
    """Check whether two predictions of the same rows are the same to the bit."""
    if isinstance(one, Classified) and isinstance(other, Classified):
        same = np.array_equal(one.codes, other.codes)
        return same and np.array_equal(one.probabilities, other.probabilities)
    return np.array_equal(np.asarray(one), np.asarray(other))


def _no_difference(mean: float) -> MeanDifference:
    return MeanDifference(mean, mean, 0.0, 0.0, 0.0, degrees=None, rows=0.0, seeds=0.0, shared=0.0)


def _shared(drawn: Floats, values: Floats) -> float:
    """The variance of the replicas' mean by what seed and rows do together."""
    moved = drawn - values[:, None]
    return float(moved.var(axis=0, ddof=1).mean() / len(values))


def _quantile(degrees: float) -> float:
    """The number of standard errors to either side that hold `LEVEL` of Student's distribution."""
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, degrees))
