"""The data of the plots that people look at; DVC draws them (`dvc plots show`, `dvc plots diff`).

Every file is written for every task; one that does not apply has a header alone, which DVC
leaves out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.common.files import rounded, write_csv
from stages.evaluate.measure.predictions import Predicted, codes_of, probabilities_of, values_of
from stages.evaluate.measure.weighted_metrics import CALIBRATION_BINS, Floats
from stages.features.schema import Class

NUM_POINTS = 200
MAX_RESIDUALS = 2000

COLUMNS = {
    "confusion": ("actual", "predicted"),
    "roc": ("false_positive_rate", "true_positive_rate"),
    "precision_recall": ("recall", "precision"),
    "calibration": ("predicted_probability", "observed_share"),
    "calibration_before": ("predicted_probability", "observed_share"),
    "residuals": ("predicted", "residual"),
    "predicted": ("actual", "predicted"),
}


def write_plots(
    folder: Path,
    classes: Sequence[Class] | None,
    target: npt.NDArray[np.generic],
    predicted: Predicted,
    uncalibrated: Floats | None = None,
    weights: Floats | None = None,
) -> None:
    """Write all plots; see `compute_metrics` for `target` and `predicted`.

    ROC and precision-recall pool the classes (micro average) where there are more than two, and
    are those of the second class where there are two. Calibration is that of the likeliest class;
    `uncalibrated` are the probabilities (rows, classes) that a temperature has changed. Curves go
    by the weights of the rows; confusion, residuals and predictions show each row as one.
    """
    rows: dict[str, Iterator[tuple[object, ...]]] = {}
    if classes is None:
        values, guesses = target.astype(np.float64), values_of(predicted)
        rows["residuals"] = _pairs(*_thin(guesses, values - guesses))
        rows["predicted"] = _pairs(*_thin(values, guesses))
    else:
        codes = target.astype(np.int64)
        predicted_codes, all_probabilities = codes_of(predicted), probabilities_of(predicted)
        rows["confusion"] = (
            (classes[a], classes[p])
            for a, p in zip(codes.tolist(), predicted_codes.tolist(), strict=True)
        )
        one_hot = np.eye(len(classes))[codes]
        hits, probabilities, of_hits = one_hot[:, 1], all_probabilities[:, 1], weights
        if len(classes) > 2:
            hits, probabilities = one_hot.ravel(), all_probabilities.ravel()
            of_hits = None if weights is None else weights.repeat(len(classes))
        rows |= _curves(hits, probabilities, of_hits)
        rows["calibration"] = _calibration(codes, all_probabilities, weights)
        if uncalibrated is not None:
            rows["calibration_before"] = _calibration(codes, uncalibrated, weights)
    for name, columns in COLUMNS.items():
        write_csv(folder / f"{name}.csv", columns, rows.get(name, iter(())))


def _curves(
    hits: Floats, probabilities: Floats, weights: Floats | None
) -> dict[str, Iterator[tuple[object, ...]]]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    false_positives, true_positives, _ = roc_curve(hits, probabilities, sample_weight=weights)
    precision, recall, _ = precision_recall_curve(hits, probabilities, sample_weight=weights)
    return {
        "roc": _pairs(*_spread(false_positives, true_positives)),
        "precision_recall": _pairs(*_spread(recall[::-1], precision[::-1])),
    }


def _calibration(
    codes: npt.NDArray[np.int64], all_probabilities: Floats, weights: Floats | None
) -> Iterator[tuple[object, ...]]:
    """The share that is right of the rows whose likeliest class has about this probability."""
    right, probabilities = all_probabilities.argmax(axis=1) == codes, all_probabilities.max(axis=1)
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    for number in range(CALIBRATION_BINS):
        inside = bins == number if weights is None else (bins == number) & (weights > 0)
        if inside.any():
            counts = None if weights is None else weights[inside]
            yield tuple(
                rounded(float(np.average(values[inside], weights=counts)))
                for values in (probabilities, right)
            )


def _thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Evenly spaced rows, at most as many as a plot can show."""
    step = max(1, -(-len(x) // MAX_RESIDUALS))
    return x[::step], y[::step]


def _spread(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Points of a curve, evenly spaced along it, both ends included."""
    if len(x) <= NUM_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, NUM_POINTS).round().astype(int))
    return x[kept], y[kept]


def _pairs(x: Floats, y: Floats) -> Iterator[tuple[object, ...]]:
    for pair in zip(x.tolist(), y.tolist(), strict=True):
        yield tuple(rounded(value) for value in pair)
