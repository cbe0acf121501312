"""The luck of training: how far a metric moves when nothing but the seed does."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.common.files import read_csv, rounded

REPLICAS = Path("data/train/replicas")


@dataclass(frozen=True)
class Spread:
    """A metric of each replica on the same test rows, replica 0 first.

    `deviation` is the standard deviation over seeds (n - 1 in the denominator); None for one.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None


def spread_of(values: Sequence[float]) -> Spread:
    """Mean and deviation of a metric's values, one for each replica."""
    deviation = rounded(statistics.stdev(values)) if len(values) > 1 else None
    return Spread(tuple(values), rounded(statistics.fmean(values)), deviation)


def count_replicas() -> int:
    """The number of replicas that the stage train has left."""
    return len(read_csv(REPLICAS / "seeds.csv"))
