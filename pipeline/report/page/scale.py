"""An axis: the numbers that stand at it, and the way from a value to a place."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """The values `low` to `high`, with `ticks` among them; `low` is less than `high`."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """The place of a value: 0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)


def make_scale(values: Iterable[float], num_ticks: int = 5, *, whole: bool = False) -> Scale:
    """The scale of round ends and ticks that holds all finite `values`.

    With `whole` all ticks are whole numbers, as of epochs. One value alone stands in the middle.
    Raises ValueError when there is none.
    """
    low, high = _ends(values)
    step = round_step((high - low) / max(1, num_ticks - 1))
    step = max(1.0, math.ceil(step)) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(number * step for number in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def make_tight_scale(values: Iterable[float]) -> Scale:
    """The scale from the least of `values` to the largest, with two to five round ticks inside.

    One value alone stands in the middle. Raises ValueError when there is none.
    """
    low, high = _ends(values)
    step = round_step((high - low) / 4)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Scale(low, high, tuple(number * step for number in range(first, last + 1)))


def _ends(values: Iterable[float]) -> tuple[float, float]:
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = 0.5 * abs(low) or 0.5
        low, high = low - room, high + room
    return low, high


def round_step(step: float) -> float:
    """The smallest of 1, 2, 2.5, 5, 10 times a power of ten that is `step` or more."""
    unit = 10.0 ** math.floor(math.log10(step))
    return next(unit * each for each in STEPS if unit * each >= step * (1 - 1e-9))


def label_ticks(ticks: Sequence[float]) -> list[str]:
    """The ticks as numbers, all with as many places as tell them apart."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
    largest = max(abs(tick) for tick in ticks)
    if largest >= 1e6 or (0 < largest < 1e-4):
        return [f"{tick:.3g}" if abs(tick) > step / 2 else "0" for tick in ticks]
    places = next(n for n in range(12) if abs(round(step, n) - step) <= 1e-6 * step)
    return [f"{0.0 if abs(tick) < step / 2 else tick:.{places}f}" for tick in ticks]
