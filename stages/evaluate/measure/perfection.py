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
# These are 0 where each prediction is right.
OF_PROBABILITIES, OF_SHARES = ("log_loss", "brier"), ("mape",)
# Likewise, in units of the target.
OF_AMOUNTS = ("rmse", "mae", "max_error")


def is_perfect(name: str, value: float, task: str, target: Array) -> bool:
    """Check whether the metric `name` is as good as can be on the test rows.

    `target` (rows,) are class codes or values. False of fewer than 50 rows, of rows of one class,
    and of metrics that are the user's own.
    """
    if len(target) < MIN_ROWS or (target == target[0]).all():
        return False
    if name in (*OF_PROBABILITIES, *OF_SHARES):
        return value <= SHOWN
    if name in OF_AMOUNTS:
        # As R² is shown as 1.
        return value <= math.sqrt(SHOWN) * float(np.std(target.astype(np.float64)))
    is_known = name in metrics_of(task) and name not in own_metrics(task)
    return is_known and name not in LESS_IS_BETTER and value >= 1 - SHOWN


def ask_at_perfect(name: str, num_rows: int, most_important: str | None) -> str:
    """The question to the user; `most_important` is the column that the model leans on most."""
    first = "" if most_important is None else f", first of all '{most_important}'"
    return (
        f"{name} is perfect on all {num_rows:,} test rows, which is rare: is a column known only "
        f"once the target is{first}? Or are test rows among the train rows too?"
    )
