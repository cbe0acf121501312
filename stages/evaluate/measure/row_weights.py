"""The weights that test rows have of their own (`prepare.weight`), and the rows that have some."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from stages.evaluate.measure.weighted_metrics import Floats
from stages.features.schema import Array


def read_weights(arrays: Mapping[str, Array]) -> Floats | None:
    """The weights (rows,) of a split in float64; None: all rows count the same."""
    return None if "weight" not in arrays else scale(np.array(arrays["weight"], np.float64))


def scale(weights: Floats) -> Floats:
    """The weights near 1, by a power of two: sums of whole numbers stay as exact as they were.

    So no square of a sum is too large or too small for float64.
    """
    return np.ldexp(weights, 1 - int(np.frexp(weights.max())[1]))


def find_counting(weights: Floats | None) -> slice | npt.NDArray[np.int64]:
    """The rows that count: all, or those whose weight is not 0."""
    if weights is None or (weights > 0).all():
        return slice(None)
    return np.flatnonzero(weights > 0)


def take_weights(weights: Floats | None, rows: slice | npt.NDArray[np.int64]) -> Floats | None:
    """The weights of some rows."""
    return None if weights is None else weights[rows]


def count_equal(num_rows: int, weights: Floats | None) -> float:
    """The number of rows of equal weight that tell as much as these (Kish, Survey Sampling, 1965).

    That is their number itself where there are no weights.
    """
    if weights is None or not weights.any():
        return num_rows
    return float(weights.sum() ** 2 / (weights**2).sum())
