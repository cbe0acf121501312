"""The question that a perfect metric raises: does the model see what it should predict?"""

import math

import numpy as np

from stages.evaluate.measure.metrics import LESS_IS_BETTER, metrics_of
from stages.evaluate.measure.own_metrics import own_metrics
from stages.features.schema import Array

# Four digits show less as nothing.
SHOWN = 5e-5
# With fewer rows an honest model may have been lucky.
MIN_ROWS = 50
# With fewer rows of other classes, a model that always says the most frequent one is nearly right.
MIN_OTHERS = 5
# The interquartile range of a normal distribution, in deviations.
QUARTILES = 1.349
# These are 0 where each prediction is right.
OF_PROBABILITIES, OF_SHARES = ("log_loss", "brier"), ("mape",)
# Likewise, in units of the target.
OF_AMOUNTS = ("rmse", "mae", "max_error")


def is_perfect(name: str, value: float, task: str, target: Array) -> bool:
    """Check whether the metric `name` is as good as can be on the test rows.

    `target` (rows,) are class codes or values. False of fewer than 50 rows, of rows of which all
    or all but a few are of one class, and of metrics that are the user's own.
    """
    if len(target) < MIN_ROWS or (target == target[0]).all():
        return False
    if task == "classification" and len(target) - max(np.bincount(target)) < MIN_OTHERS:
        return False
    if name in (*OF_PROBABILITIES, *OF_SHARES):
        return value <= SHOWN
    if name in OF_AMOUNTS:
        # As R² is shown as 1, of values without those far off.
        return value <= math.sqrt(SHOWN) * _spread(target)
    if name == "r2":
        deviation = float(np.std(target.astype(np.float64)))
        return math.sqrt(max(0.0, 1 - value)) * deviation <= math.sqrt(SHOWN) * _spread(target)
    is_known = name in metrics_of(task) and name not in own_metrics(task)
    return is_known and name not in LESS_IS_BETTER and value >= 1 - SHOWN


def _spread(target: Array) -> float:
    """The deviation, or what the middle half of the rows tells of it where that is less."""
    values = target.astype(np.float64)
    first, third = np.quantile(values, [0.25, 0.75])
    return min(float(values.std()), float(third - first) / QUARTILES)


def ask_at_perfect(name: str, num_rows: int, most_important: str | None) -> str:
    """The question to the user; `most_important` is the column that the model leans on most."""
    first = "" if most_important is None else f", first of all '{most_important}'"
    return (
        f"{name} is perfect on all {num_rows:,} test rows, which is rare: is a column known only "
        f"once the target is{first}? Or are test rows among the train rows too?"
    )
