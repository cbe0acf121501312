"""The metrics of weighted rows, for many sets of weights at once.

A resample of the rows is a weight for each: how often it was drawn. What a metric needs of the
rows (their losses, the order of their scores) is worked out once; a set of weights then costs
sums alone.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from stages.evaluate.measure.own_metrics import own_metrics, takes_weights
from stages.evaluate.measure.predictions import Predicted, codes_of, probabilities_of, values_of

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]
# Weights (sets, rows): one byte each, so that rows are brought into another order in the cache;
# numbers with fractions where rows have weights of their own.
Weights = npt.NDArray[np.uint8] | Floats
# The metric of each set of weights (sets,); NaN where the rows of a set don't define it.
Weighted = Callable[[Weights], Floats]
# For the labels (sets, classes): how often right, how often the target, how often predicted.
Counts = tuple[Floats, Floats, Floats]

CALIBRATION_BINS = 15
# The pinball loss of a value that so large a share of the rows should lie below.
PINBALL = {f"pinball_{q:02}": q / 100 for q in (5, 10, 25, 50, 75, 90, 95)}
# What scikit-learn replaces a probability of 0 with, where it takes the logarithm.
SMALLEST = float(np.finfo(np.float64).eps)


def weighted_metric(
    name: str,
    task: str,
    target: npt.NDArray[np.generic],
    predicted: Predicted,
    of_rows: Floats | None = None,
) -> Weighted | None:
    """The metric of the rows, each repeated as often as its weight says, as a function of weights.

    `target` and `predicted` as in `compute_metrics`. None for one of one's own that takes no
    weights, and for the two that resamples say nothing
    about: no `max_error` of theirs exceeds the largest error seen, and the `ece` of a calibrated
    model is noise, to which a resample adds as much again (of 300 intervals of 200 rows, none
    held the true value).

    `of_rows` (rows,) are weights above 0 that the rows have beside it.
    """
    own = own_metrics(task)
    if name in own:
        function = _of_each(own[name], target, predicted)
    elif task == "classification":
        function = _classification(name, target.astype(np.int64), predicted)
    else:
        function = _regression(name, target.astype(np.float64), values_of(predicted))
    if function is None or of_rows is None:
        return function
    return lambda weights: function(weights * of_rows)


def _of_each(
    metric: Callable[..., float], target: npt.NDArray[np.generic], predicted: Predicted
) -> Weighted | None:
    """A metric of one's own, called for each set of weights; None: it knows no weights."""
    if not takes_weights(metric):
        return None

    def of_each(weights: Weights) -> Floats:
        found = []
        for each in weights.astype(np.float64):
            rows = np.flatnonzero(each)
            found.append(metric(target[rows], predicted[rows], sample_weight=each[rows]))
        return np.array(found)

    return of_each


def _classification(name: str, target: Codes, predicted: Predicted) -> Weighted | None:
    predicted_codes, probabilities = codes_of(predicted), probabilities_of(predicted)
    rows, classes = probabilities.shape
    of_counts: dict[str, Callable[[Counts], Floats]] = {
        "balanced_accuracy": _balanced_accuracy,
        "f1": lambda c: _share(2 * c[0], c[1] + c[2])[:, 1],
        "precision": lambda c: _share(c[0], c[2])[:, 1],
        "recall": lambda c: _share(c[0], c[1])[:, 1],
        "f1_micro": lambda c: c[0].sum(1) / c[1].sum(1),
        "f1_macro": lambda c: _over_seen(2 * c[0], c[1] + c[2], c),
        "f1_weighted": lambda c: (_share(2 * c[0], c[1] + c[2]) * c[1]).sum(1) / c[1].sum(1),
        "precision_macro": lambda c: _over_seen(c[0], c[2], c),
        "recall_macro": lambda c: _over_seen(c[0], c[1], c),
        "matthews_corrcoef": _matthews,
        "cohen_kappa": _kappa,
    }
    if name in of_counts:
        count = _counter(target, predicted_codes, classes)
        return lambda weights: of_counts[name](count(weights))
    if name == "accuracy":
        return _mean_of((predicted_codes == target).astype(np.float64))
    if name == "log_loss":
        return _mean_of(-np.log(np.maximum(probabilities[np.arange(rows), target], SMALLEST)))
    if name == "brier":
        squares = ((np.arange(classes) == target[:, None]) - probabilities) ** 2
        return _mean_of(squares.sum(axis=1) / (2 if classes == 2 else 1))
    ranked = {"roc_auc": _area_under_roc, "average_precision": _average_precision}.get(name)
    if ranked is None:
        return None
    positives = [1] if classes == 2 else range(classes)
    parts = [ranked(target == label, probabilities[:, label]) for label in positives]
    return lambda weights: np.mean([part(weights) for part in parts], axis=0)


def _regression(name: str, target: Floats, predicted: Floats) -> Weighted | None:
    error = target - predicted
    if name == "rmse":
        mean_square = _mean_of(error**2)
        return lambda weights: np.sqrt(mean_square(weights))
    if name == "mae":
        return _mean_of(np.abs(error))
    if name == "mape":
        return _mean_of(np.abs(error) / np.maximum(np.abs(target), SMALLEST))
    if name in PINBALL:
        return _mean_of(np.maximum(PINBALL[name] * error, (PINBALL[name] - 1) * error))
    if name == "median_absolute_error":
        return _median_of(np.abs(error))
    if name in ("r2", "explained_variance"):
        # Around the mean of all rows, so that squares of large numbers lose no digits.
        values = target - target.mean()
        left = _variance_of(error) if name == "explained_variance" else _mean_of(error**2)
        around = _variance_of(values)
        return lambda weights: 1 - _divide(left(weights), around(weights))
    return None


def _divide(above: Floats, below: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _share(above: Floats, below: Floats) -> Floats:
    """0 where there is nothing to divide by, as for a class that is never predicted."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _mean_of(values: Floats) -> Weighted:
    return lambda weights: weights @ values / weights.sum(axis=1)


def _variance_of(values: Floats) -> Weighted:
    mean, mean_square = _mean_of(values), _mean_of(values**2)
    return lambda weights: mean_square(weights) - mean(weights) ** 2


def _median_of(values: Floats) -> Weighted:
    order = np.argsort(values, kind="stable")
    ordered = values[order]

    def median(weights: Weights) -> Floats:
        whole = np.issubdtype(weights.dtype, np.integer)
        upto = weights.take(order, axis=1).cumsum(axis=1, dtype=np.int64 if whole else np.float64)
        half = upto[:, -1:] / 2
        # Of an even number of rows the median is the mean of the two in the middle.
        lower = (upto < half).sum(axis=1)
        upper = (upto <= half).sum(axis=1)
        return np.asarray((ordered[lower] + ordered[upper]) / 2)

    return median


def sums_by(
    groups: Codes, num_groups: int, values: Floats | None = None
) -> Callable[[Weights], Floats]:
    """Sums weights (sets, rows), times `values` (rows,), over each group: (sets, groups)."""
    order = np.argsort(groups, kind="stable")
    present, starts = np.unique(groups[order], return_index=True)
    ordered = None if values is None else values[order]

    def sums(weights: Weights) -> Floats:
        found = np.zeros((len(weights), num_groups))
        if len(starts):
            moved = weights.take(order, axis=1).astype(np.float64)
            if ordered is not None:
                moved *= ordered
            found[:, present] = np.add.reduceat(moved, starts, axis=1)
        return found

    return sums


def _counter(target: Codes, predicted_codes: Codes, classes: int) -> Callable[[Weights], Counts]:
    right = np.flatnonzero(target == predicted_codes)
    of_right = sums_by(target[right], classes)
    actual, predicted_count = sums_by(target, classes), sums_by(predicted_codes, classes)
    return lambda weights: (
        of_right(weights.take(right, axis=1)),
        actual(weights),
        predicted_count(weights),
    )


def _over_seen(above: Floats, below: Floats, counts: Counts) -> Floats:
    """The mean over the classes that are the target or predicted in some row."""
    seen = (counts[1] + counts[2] > 0).sum(axis=1)
    return np.asarray(_share(above, below).sum(axis=1) / seen)


def _balanced_accuracy(counts: Counts) -> Floats:
    right, actual, _ = counts
    return np.asarray(_share(right, actual).sum(axis=1) / (actual > 0).sum(axis=1))


def _matthews(counts: Counts) -> Floats:
    """Gorodkin's R_K (Computational Biology and Chemistry 28, 2004), of any number of classes."""
    right, actual, predicted_count = counts
    total = actual.sum(axis=1)
    covariance = right.sum(axis=1) * total - (actual * predicted_count).sum(axis=1)
    spread = (total**2 - (predicted_count**2).sum(axis=1)) * (total**2 - (actual**2).sum(axis=1))
    return _share(covariance, np.sqrt(spread))


def _kappa(counts: Counts) -> Floats:
    right, actual, predicted_count = counts
    total = actual.sum(axis=1)
    by_chance = (actual * predicted_count).sum(axis=1) / total**2
    return _divide(right.sum(axis=1) / total - by_chance, 1 - by_chance)


def calibration_error(
    right: Bools, probabilities: Floats, sample_weight: Floats | None = None
) -> float:
    """Expected calibration error over 15 bins of equal width, by the likeliest class's probability.

    It is the mean distance of that probability from the share that is right (Guo et al., 'On
    Calibration of Modern Neural Networks', ICML 2017, equation 3; 15 bins as there).
    """
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    weights = np.ones(len(right)) if sample_weight is None else sample_weight
    distances = np.bincount(bins, weights=(right - probabilities) * weights)
    return float(np.abs(distances).sum() / weights.sum())


def _area_under_roc(hits: Bools, scores: Floats) -> Weighted:
    """The share of pairs of a hit and a miss in which the hit is higher; equal ones count half."""
    hit_rows, miss_rows = _ranked(hits, scores), _ranked(~hits, scores)
    misses = scores[miss_rows]
    lower = np.searchsorted(misses, scores[hit_rows], side="left")
    not_higher = np.searchsorted(misses, scores[hit_rows], side="right")
    equal = bool((lower != not_higher).any())

    def area(weights: Weights) -> Floats:
        of_hits = weights.take(hit_rows, axis=1).astype(np.float64)
        upto = _running(weights.take(miss_rows, axis=1))
        below = upto.take(lower, axis=1)
        if equal:
            below = (below + upto.take(not_higher, axis=1)) / 2
        pairs = of_hits.sum(axis=1) * upto[:, -1]
        return _divide(np.einsum("sh,sh->s", of_hits, below), pairs)

    return area


def _average_precision(hits: Bools, scores: Floats) -> Weighted:
    """Precision at each threshold, weighed by the recall that it adds."""
    hit_rows, miss_rows = _ranked(hits, -scores), _ranked(~hits, -scores)
    thresholds = -scores[hit_rows]
    hits_upto = np.searchsorted(thresholds, thresholds, side="right")
    misses_upto = np.searchsorted(-scores[miss_rows], thresholds, side="right")

    def precision(weights: Weights) -> Floats:
        of_hits = weights.take(hit_rows, axis=1)
        upto = _running(of_hits)
        found = upto.take(hits_upto, axis=1)
        chosen = found + _running(weights.take(miss_rows, axis=1)).take(misses_upto, axis=1)
        return _divide((of_hits * _share(found, chosen)).sum(axis=1), upto[:, -1])

    return precision


def _ranked(chosen: Bools, scores: Floats) -> Codes:
    """The chosen rows by their scores, lowest first."""
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(scores[rows], kind="stable")]


def _running(weights: Weights) -> Floats:
    """The sum of the first 0, 1, … of them: (sets, rows + 1)."""
    sums = np.zeros((len(weights), weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums
