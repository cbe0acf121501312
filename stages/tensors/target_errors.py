"""Errors of predicted values in the target's own units, as tensors."""

import math

from torch import Tensor

from stages.features.schema import Moments
from stages.features.target_scale import LARGEST


def square_errors(scores: Tensor, target: Tensor, scale: Moments) -> Tensor:
    """The squares of errors, as `root_in_units` takes their mean.

    Without a transform they are in deviations of the target, else in its units, float64.
    """
    if scale.transform is None:
        return (scores - target).square()
    return (to_units(scores, scale) - to_units(target, scale)).square()


def root_in_units(mean_square: float, scale: Moments) -> float:
    """The root of the mean of `square_errors`, in the target's units."""
    root = math.sqrt(mean_square)
    return root * scale.deviation if scale.transform is None else root


def to_units(scores: Tensor, scale: Moments) -> Tensor:
    """Scores, or an encoded target, in the target's units, float64."""
    values = scores.double() * scale.deviation + scale.mean
    return invert(values, scale)


def invert(values: Tensor, scale: Moments) -> Tensor:
    """The values that the transform of the target, if there is one, has made `values` of."""
    return values if scale.transform is None else values.clamp(max=LARGEST).expm1()
