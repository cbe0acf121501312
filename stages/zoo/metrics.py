"""Metrics of the project's own, beside scikit-learn's: a function's name is that in `params.yaml`.

A function here takes the targets, what is predicted, and `sample_weight` (rows,) or None; it
returns one number, NaN where the rows don't define it. The name of its second argument says what
it is given. `classes`: codes of target and prediction (rows,). `probabilities`: codes of the target
(rows,) beside (rows, classes). `values`: both in the target's units (rows,). More of it is better,
unless `LESS_IS_BETTER` names it. Functions whose names begin with '_' are no metrics.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

LESS_IS_BETTER = ("wape",)


def ks(target: Codes, probabilities: Floats, sample_weight: Floats | None = None) -> float:
    """The Kolmogorov-Smirnov distance between the scores of two classes, as credit scoring has it.

    It is the largest difference, over all thresholds, of the shares of either class above it.
    """
    if probabilities.shape[1] != 2:
        raise ValueError(f"ks is for two classes, and there are {probabilities.shape[1]}")
    weight = np.ones(len(target)) if sample_weight is None else sample_weight
    _, score = np.unique(probabilities[:, 1], return_inverse=True)
    first, second = (np.bincount(score, weight * (target == code)).cumsum() for code in (0, 1))
    if not first[-1] * second[-1]:
        return float("nan")
    return float(np.abs(first / first[-1] - second / second[-1]).max())


def wape(target: Floats, values: Floats, sample_weight: Floats | None = None) -> float:
    """The sum of absolute errors over that of the targets' sizes, as demand forecasting has it."""
    weight = np.ones(len(target)) if sample_weight is None else sample_weight
    total = (weight * np.abs(target)).sum()
    return float((weight * np.abs(target - values)).sum() / total) if total else float("nan")
