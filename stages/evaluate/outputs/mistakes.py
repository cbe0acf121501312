"""The mistakes of a model: each class by itself, and the rows that it was surest about."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.common.files import rounded, write_csv
from stages.evaluate.measure.bootstrap import wilson
from stages.evaluate.measure.predictions import (
    Predicted,
    codes_of,
    probabilities_of,
    probability_of,
    values_of,
)
from stages.evaluate.measure.row_weights import count_equal, take_weights
from stages.evaluate.measure.weighted_metrics import Bools, Floats
from stages.features.schema import Array, Class

MAX_MISTAKES = 100
OF_CLASS = (
    *("class", "rows", "predicted", "recall", "recall_low", "recall_high"),
    *("precision", "precision_low", "precision_high", "f1"),
)
OF_VALUES = ("target", "prediction", "residual")
OF_CLASSES = ("target", "prediction", "probability", "probability_of_target")


def write_classes(
    path: Path,
    classes: Sequence[Class] | None,
    target: Array,
    predicted: Predicted,
    weights: Floats | None = None,
) -> None:
    """A line for each class, with Wilson's intervals; see `compute_metrics` for the arguments.

    The shares of a class that no row has, or none is predicted to have, are empty. Of values,
    the header alone. Rows are counted; the shares of rows with weights are shares of these.
    """
    lines: list[tuple[object, ...]] = []
    if classes is not None:
        codes, predicted_codes = target.astype(np.int64), codes_of(predicted)
        for code, name in enumerate(classes):
            actual, said = codes == code, predicted_codes == code
            right = _sum(actual & said, weights)
            both = _sum(actual, weights) + _sum(said, weights)
            f1 = rounded(2 * right / both) if both else None
            shares = *_share(right, actual, weights), *_share(right, said, weights)
            lines.append((name, int(actual.sum()), int(said.sum()), *shares, f1))
    write_csv(path, OF_CLASS, lines)


def _sum(rows: Bools, weights: Floats | None) -> float:
    """The number of the rows, or the sum of their weights."""
    return float(rows.sum() if weights is None else weights[rows].sum())


def _share(right: float, of: Bools, weights: Floats | None) -> tuple[float | None, ...]:
    whole = _sum(of, weights)
    if not whole:
        return (None, None, None)
    num_equal = count_equal(int(of.sum()), take_weights(weights, np.flatnonzero(of)))
    return (rounded(right / whole), *wilson(right / whole, num_equal))


@dataclass(frozen=True)
class Mistake:
    """A wrong row, or a value that is off: its place among the test rows, and what was said.

    Of classes `probability` is that of the predicted class; of values `residual` is the rest.
    """

    row: int
    key: object
    target: object
    prediction: object
    probability: float | None = None
    probability_of_target: float | None = None
    residual: float | None = None


def find_mistakes(
    keys: Array, classes: Sequence[Class] | None, target: Array, predicted: Predicted
) -> list[Mistake]:
    """The largest mistakes, at most 100: wrong rows by the probability, values by the distance.

    `keys` (rows,) name the rows; see `compute_metrics` for the others.
    """
    if classes is None:
        return list(_far_off(keys, target, predicted))
    return list(_wrong(keys, classes, target, predicted))


def write_mistakes(
    path: Path, key: str, classes: Sequence[Class] | None, mistakes: Sequence[Mistake]
) -> None:
    """A line for each; `key` is the name of the column that names the rows."""
    names = OF_VALUES if classes is None else OF_CLASSES
    lines = [(m.key, *(getattr(m, name) for name in names)) for m in mistakes]
    write_csv(path, (key, *names), lines)


def _wrong(
    keys: Array, classes: Sequence[Class], target: Array, predicted: Predicted
) -> Iterator[Mistake]:
    codes, predicted_codes = target.astype(np.int64), codes_of(predicted)
    likelihood, probabilities = probability_of(predicted), probabilities_of(predicted)
    rows = np.flatnonzero(predicted_codes != codes)
    for row in rows[np.argsort(-likelihood[rows], kind="stable")][:MAX_MISTAKES].tolist():
        of_said, of_target = (
            rounded(float(p)) for p in (likelihood[row], probabilities[row, codes[row]])
        )
        actual, other = classes[codes[row]], classes[predicted_codes[row]]
        yield Mistake(row, keys[row], actual, other, of_said, of_target)


def _far_off(keys: Array, target: Array, predicted: Predicted) -> Iterator[Mistake]:
    values, guesses = target.astype(np.float64), values_of(predicted)
    residuals = values - guesses
    for row in np.argsort(-np.abs(residuals), kind="stable")[:MAX_MISTAKES].tolist():
        value, guess, residual = (rounded(float(of[row])) for of in (values, guesses, residuals))
        yield Mistake(row, keys[row], value, guess, residual=residual)
