"""A time's place in its cycles, as sine and cosine; NumPy alone."""

import math

import numpy as np

from stages.features.schema import Cycle, Feature
from stages.features.times import PERIODS, Floats

# Sines and cosines are whole multiples of 1 over this, half a millionth off at most. So that of π
# is 0 in float32 as in float64: rounding would else make of midnight and noon two values.
STEPS = float(2**20)
_PARTS = ("sin", "cos")


def parts_of(feature: Feature) -> list[tuple[Cycle | None, str]]:
    """The values of a time: itself, and a sine and a cosine for each cycle."""
    time: list[tuple[Cycle | None, str]] = [] if feature.calendar else [(None, "")]
    return [*time, *((cycle, part) for cycle in feature.cycles or [] for part in _PARTS)]


def waves_of(seconds: Floats, cycle: Cycle) -> list[Floats]:
    """Sine and cosine of the places of times (rows,) in a cycle."""
    turns = seconds / PERIODS[cycle]
    angle = 2 * math.pi * (turns - np.floor(turns))
    return [np.round(wave * STEPS) / STEPS for wave in (np.sin(angle), np.cos(angle))]
