"""The value at a place in the order of a column, exactly, without its values in order.

Values are counted in intervals, and those of the interval with the place are then looked at: as
values where they are few, else in intervals again.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.prepare.expectations.long.pieces import pieces
from stages.prepare.expectations.long.repeats import plain_rows
from stages.prepare.table.table import Table

NUM_INTERVALS = 4096
# So many values are put in order.
MAX_VALUES = 1_000_000

Numbers = npt.NDArray[Any]


def values_at(table: Table, name: str, ranks: Collection[int], low: Any, high: Any) -> list[Any]:
    """The values at `ranks`, from 0, of a column of finite numbers between `low` and `high`."""
    return [_value_at(table, name, rank, low, high) for rank in ranks]


def _value_at(table: Table, name: str, rank: int, low: Any, high: Any) -> Any:
    """Narrow the interval from `low` to `high`, both in it, to the value at `rank`."""
    while low < high:
        edges = _edges(low, high)
        counts = np.zeros(edges.size, np.int64)
        for values in _values(table, name, low, high):
            places = np.searchsorted(edges, values, side="right") - 1
            counts += np.bincount(places, minlength=edges.size)
        before = np.cumsum(counts) - counts
        place = int(np.searchsorted(before, rank, side="right")) - 1
        rank -= int(before[place])
        low = edges[place]
        high = _before(edges[place + 1]) if place + 1 < edges.size else high
        if counts[place] <= MAX_VALUES:
            own = np.concatenate([*_values(table, name, low, high)])
            return np.partition(own, rank)[rank]
    return low


def _edges(low: Any, high: Any) -> Numbers:
    """The beginnings of intervals, `low` the first of them, each another number."""
    if isinstance(low, int | np.integer):
        step = max(1, -(-(int(high) - int(low) + 1) // NUM_INTERVALS))
        return np.array(range(int(low), int(high) + 1, step))
    # Of halves, since their difference may be greater than any number.
    steps = np.linspace(0, 1, NUM_INTERVALS, endpoint=False)
    return np.unique(np.clip(low * (1 - steps) + high * steps, low, high))


def _before(edge: Any) -> Any:
    """The number before the beginning of the next interval."""
    return edge - 1 if isinstance(edge, int | np.integer) else np.nextafter(edge, -np.inf)


def _values(table: Table, name: str, low: Any, high: Any) -> Iterator[Numbers]:
    """The values between `low` and `high`, both included, part by part."""
    for _, piece in pieces(table, [name]):
        values = plain_rows(piece).to_series().drop_nulls().to_numpy()
        yield values[(values >= low) & (values <= high)]
