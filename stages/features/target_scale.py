"""The scale that a target of values is learned in, and the way back to its own units.

A model learns (t(value) - mean) / deviation, where t is `prepare.target_transform`, and mean and
deviation are those of the train rows' t(value). What it predicts goes the same way back.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from stages.features.schema import Moments, TargetTransform

Floats = npt.NDArray[np.float64]
# A value must be above it, and what is predicted is.
LOWEST = -1.0
# Beyond it, expm1 is no longer a float64.
LARGEST = 700.0
# From this skewness on a target has a long tail: an exponential distribution has 2.
SKEWED = 1.0


def transform(values: Floats, name: TargetTransform | None) -> Floats:
    """The values as the transform has them; all of them lie above `LOWEST`."""
    return values if name is None else np.log1p(values)


def invert(values: Floats, name: TargetTransform | None) -> Floats:
    """The values that the transform has made these of."""
    return values if name is None else np.expm1(np.minimum(values, LARGEST))


def to_units(scores: npt.NDArray[Any], scale: Moments) -> Floats:
    """Scores, or an encoded target, in the target's units."""
    return invert(scores.astype(np.float64) * scale.deviation + scale.mean, scale.transform)


def to_scale(values: Floats, scale: Moments) -> Floats:
    """Values in the target's units as a model learns them."""
    return (transform(values, scale.transform) - scale.mean) / scale.deviation


def steps_at(values: Floats, scale: Moments) -> Floats:
    """The change of the target, in its units, that is 1 in a model's score, at `values`."""
    if scale.transform is None:
        return np.full(values.shape, scale.deviation)
    return scale.deviation * np.maximum(1 + values, np.finfo(np.float64).tiny)


def has_long_tail(values: Floats) -> bool:
    """Check whether a logarithm may suit: all values lie above `LOWEST`, and large ones far off."""
    spread = float(values.std())
    if spread == 0 or values.min() <= LOWEST:
        return False
    return float(np.mean((values - values.mean()) ** 3)) / spread**3 >= SKEWED
