"""An interval around each predicted value, or a set of classes: what says how sure it is.

Split conformal prediction (Vovk, Gammerman and Shafer, 'Algorithmic Learning in a Random World',
2005; Lei et al., 'Distribution-Free Predictive Inference for Regression', JASA 113, 2018): how far
predictions of the validation rows lie from their targets says how far those of new rows will. Where
new rows are drawn as the validation rows were, the interval holds the target of at least the share
`coverage` of them, whatever the model.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.common.config import Config
from stages.common.errors import Problem, UserError
from stages.model.calibration import Calibration, predict_codes, to_probabilities

Floats = npt.NDArray[np.float64]
Coverage = Annotated[float, Field(gt=0, lt=1)] | None
KEY = "evaluate.coverage"
# The bound of sets is lower by this share. It is a row's probability, and float32 rounds otherwise
# in ONNX or on another machine: that must not put this row and its like out of their sets.
SLACK = 1e-5


class CoverageParams(Config):
    """The part of the section `evaluate` that a prediction takes."""

    coverage: Coverage
    """The share of rows whose target the interval holds; null: predictions have none."""


@dataclass(frozen=True)
class Conformal:
    """The interval or the set of each prediction.

    `bound` is half the width of the interval, in the target's units; with
    `prepare.target_transform` in those of the transformed target. Of classes it is the least
    probability of those in the set, a hundred-thousandth lower (SLACK).
    """

    coverage: float
    bound: float

    def interval(self, values: Floats) -> tuple[Floats, Floats]:
        """Both ends of the intervals around predicted values (rows,), transformed ones too."""
        return values - self.bound, values + self.bound

    def contains(self, probabilities: Floats, threshold: float | None) -> npt.NDArray[np.bool_]:
        """Mark the classes in each row's set (rows, classes).

        The predicted class is always one of them: an empty set would tell nobody anything.
        """
        inside = probabilities >= self.bound
        inside[np.arange(len(inside)), predict_codes(probabilities, threshold)] = True
        return inside


def read_conformal(
    validation: Path, coverage: float, calibration: Calibration, deviation: float | None
) -> Conformal:
    """Fit the interval to the validation rows in a folder that train has written.

    Of values it is the absolute error, `deviation` the units of the target, transformed or not; of
    classes (None) the probability of the right one (Sadinle, Lei and Wasserman, 'Least Ambiguous
    Set-Valued Classifiers', JASA 114, 2019). Raises UserError where the rows are too few for
    `coverage`.
    """
    names = [
        name for name in ("scores", "target", "weight") if (validation / f"{name}.npy").exists()
    ]
    arrays = {name: np.load(validation / f"{name}.npy", allow_pickle=False) for name in names}
    scores, target = arrays["scores"].astype(np.float64), arrays["target"]
    weights = arrays.get("weight")
    if deviation is not None:
        errors = np.abs(scores[:, 0] - target) * deviation
        return Conformal(coverage, find_quantile(errors, coverage, weights))
    probabilities = to_probabilities(scores, calibration.temperature)
    of_target = probabilities[np.arange(len(target)), target]
    return Conformal(coverage, (0.0 - find_quantile(-of_target, coverage, weights)) * (1 - SLACK))


def find_quantile(values: Floats, coverage: float, weights: Floats | None = None) -> float:
    """The least of `values` (rows,) that a new row's is not above, in the share `coverage`.

    With n rows it is number ⌈(n + 1) · coverage⌉ of the ordered ones, since the new row may have
    any rank among them. Rows count by their `weights` (rows,), the new one as their mean. Raises
    UserError where the rows are too few.
    """
    counts = np.ones(len(values)) if weights is None else weights.astype(np.float64)
    # Rows of weight 0 tell nothing.
    values, counts = values[counts > 0], counts[counts > 0]
    order = np.argsort(values, kind="stable")
    # A share of the sum that is met but for rounding is met.
    needed = coverage * (counts.sum() + counts.mean()) * (1 - 1e-12) if len(values) else np.inf
    place = int(np.searchsorted(np.cumsum(counts[order]), needed))
    if place == len(values):
        least = int(np.ceil(coverage / (1 - coverage) - 1e-9))
        message = (
            f"an interval that holds {coverage:g} of the targets takes {least} validation rows or "
            f"more, and there are {len(values)}"
        )
        # Down, so that what is said is allowed.
        largest = math.floor(1000 * len(values) / (len(values) + 1)) / 1000
        raise UserError(Problem(message, KEY, f"{coverage:g}", (f"at most {largest:g}", "null")))
    return float(values[order[place]])
