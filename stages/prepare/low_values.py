"""Values of a target that have no logarithm of 1 plus the value."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.common.counts import counted
from stages.common.errors import Problem
from stages.features.schema import TargetTransform
from stages.features.target_scale import LOWEST

KEY = "prepare.target_transform"


@dataclass(frozen=True)
class LowValues:
    """The values that are too low: in how many rows, and the smallest of them."""

    num_rows: int
    smallest: float


def find_low(parts: Iterable[npt.NDArray[np.float64]]) -> LowValues | None:
    """The values that are too low; None: there are none."""
    num_rows, smallest = 0, np.inf
    for values in parts:
        low = values[values <= LOWEST]
        if len(low):
            num_rows, smallest = num_rows + len(low), min(smallest, float(low.min()))
    return LowValues(num_rows, float(smallest)) if num_rows else None


def stop_at_low(target: str, name: TargetTransform, low: LowValues) -> Problem:
    """The mistake of a transform that `low` has no value of."""
    message = (
        f"{name} takes values above {LOWEST:g}, and the target '{target}' is {LOWEST:g} or less in "
        f"{counted(low.num_rows, 'row')}, the smallest {low.smallest:g}"
    )
    return Problem(message, KEY, name, ("null",))


def stop_at_classes(target: str, name: TargetTransform) -> Problem:
    """The mistake of a transform of classes."""
    message = f"{name} is of values, and the target '{target}' is a class"
    return Problem(message, KEY, name, ("null",))
