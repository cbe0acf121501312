"""The data of the plots that people look at; DVC draws them (`dvc plots show`, `dvc plots diff`).

Every file is written for every task; one that does not apply has a header alone, which DVC
leaves out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.common.files import rounded, write_csv
from stages.common.schema import Class
from stages.evaluate.weighted import CALIBRATION_BINS, Floats

NUM_POINTS = 200
MAX_RESIDUALS = 2000

COLUMNS = {
    "confusion": ("actual", "predicted"),
    "roc": ("false_positive_rate", "true_positive_rate"),
    "precision_recall": ("recall", "precision"),
    "calibration": ("predicted_probability", "observed_share"),
    "residuals": ("predicted", "residual"),
    "predicted": ("actual", "predicted"),
}


def write_plots(
    folder: Path,
    classes: Sequence[Class] | None,
    target: npt.NDArray[np.generic],
    predicted: Floats,
) -> None:
    """Write all plots; see `compute_metrics` for `target` and `predicted`.

    ROC and precision-recall pool the classes (micro average) where there are more than two, and
    are those of the second class where there are two.
    """
    rows: dict[str, Iterator[tuple[object, ...]]] = {}
    if classes is None:
        values = target.astype(np.float64)
        rows["residuals"] = _pairs(*_thin(predicted, values - predicted))
        rows["predicted"] = _pairs(*_thin(values, predicted))
    else:
        codes = target.astype(np.int64)
        guessed = predicted.argmax(axis=1)
        rows["confusion"] = (
            (classes[a], classes[p]) for a, p in zip(codes.tolist(), guessed.tolist(), strict=True)
        )
        one_hot = np.eye(len(classes))[codes]
        hits, chances = one_hot[:, 1], predicted[:, 1]
        if len(classes) > 2:
            hits, chances = one_hot.ravel(), predicted.ravel()
        rows |= _curves(hits, chances)
        rows["calibration"] = _calibration(guessed == codes, predicted.max(axis=1))
    for name, columns in COLUMNS.items():
        write_csv(folder / f"{name}.csv", columns, rows.get(name, iter(())))


def _curves(hits: Floats, chances: Floats) -> dict[str, Iterator[tuple[object, ...]]]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    false_positives, true_positives, _ = roc_curve(hits, chances)
    precision, recall, _ = precision_recall_curve(hits, chances)
    return {
        "roc": _pairs(*_spread(false_positives, true_positives)),
        "precision_recall": _pairs(*_spread(recall[::-1], precision[::-1])),
    }


def _calibration(right: npt.NDArray[np.bool_], chances: Floats) -> Iterator[tuple[object, ...]]:
    """Of the rows predicted with about this probability, the share that was right."""
    bins = np.minimum((chances * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    for number in range(CALIBRATION_BINS):
        inside = bins == number
        if inside.any():
            yield rounded(float(chances[inside].mean())), rounded(float(right[inside].mean()))


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
