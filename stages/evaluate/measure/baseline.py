"""The question that a metric raises where a constant is as good: do the columns tell anything?

A constant knows no column: of classes it says the shares that they have in the train rows, and so
the most frequent class; of amounts their mean.
"""

import numpy as np
import numpy.typing as npt

from stages.evaluate.measure.metrics import compute_metrics, less_is_better, metrics_of
from stages.evaluate.measure.own_metrics import own_metrics
from stages.evaluate.measure.perfection import MIN_ROWS
from stages.evaluate.measure.predictions import Classified, Predicted
from stages.evaluate.measure.weighted_metrics import PINBALL, Floats
from stages.features.schema import Array

# A constant is near perfect by what judges probabilities by themselves, or one class alone; and
# of what asks for a quantile the mean is none.
UNFIT = ("ece", "recall", *PINBALL)


def measure_constant(
    name: str,
    train_target: Array,
    target: Array,
    num_classes: int | None,
    weights: Floats | None = None,
) -> float | None:
    """The metric `name` of a constant on the test rows.

    `train_target` (train rows,) and `target` (test rows,) are class codes or values, of which
    `num_classes` is None; `weights` (test rows,) say how much a test row counts. None of fewer than
    50 test rows, of metrics that are the user's own, and of those that are UNFIT.
    """
    task = "regression" if num_classes is None else "classification"
    if len(target) < MIN_ROWS or name in UNFIT:
        return None
    if name not in metrics_of(task) or name in own_metrics(task):
        return None
    predicted = _predict_constant(train_target, len(target), num_classes)
    return compute_metrics([name], task, target, predicted, weights)[name]


def _predict_constant(train_target: Array, num_rows: int, num_classes: int | None) -> Predicted:
    if num_classes is None:
        return np.full(num_rows, train_target.astype(np.float64).mean())
    # A class may have no train row, as one that is new at the end of a table by time.
    counts = np.bincount(train_target.astype(np.int64), minlength=num_classes)
    shares: npt.NDArray[np.float64] = np.tile(counts / counts.sum(), (num_rows, 1))
    return Classified(np.full(num_rows, counts.argmax(), np.int64), shares)


def ask_at_constant(name: str, task: str, value: float, constant: float) -> str | None:
    """The question to the user where `value` is no better than that of a `constant`; else None."""
    better = value < constant if less_is_better(name) else value > constant
    if better:
        return None
    what = "the mean" if task == "regression" else "the most frequent class"
    return (
        f"{name} {value:.4g} on the test rows is no better than {constant:.4g}, which {what} of "
        "the train rows has, said of each row: do the columns tell anything of the target, and "
        "are test rows like train rows? `reprise advise` measures what would help"
    )
