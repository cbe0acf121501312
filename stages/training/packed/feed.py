"""The rows of a pack's steps: each member has its own, in its own order.

The rows of many steps are gathered at once, so that those of a step are a slice. In the last steps
of an epoch members may have batches of different sizes, since folds differ by a row or so; those of
one size are a group, and whoever has no rows left waits.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.tensors.batch import Batch
from stages.training.data.source import TensorSource

# The rows that are gathered at once are those of as many steps as make so many bytes.
GATHER_BYTES = 4_000_000


@dataclass(frozen=True)
class Group:
    """Members whose batches in a step have the same number of rows, by their places in the pack.

    `batch`, `target` and `row_weights` are (members, rows, …); `rows` (members, rows) are the
    numbers of the rows.
    """

    places: list[int]
    step: int
    rows: Tensor
    batch: Batch
    target: Tensor
    row_weights: Tensor | None


def feed(
    sources: Sequence[TensorSource],
    orders: Sequence[Sequence[Tensor]],
    first: int,
    left_out: Collection[int],
) -> Iterator[list[Group]]:
    """Yield the groups of each step of an epoch from step `first` on.

    `orders` have the batches of the epoch of each of `sources`. Places that `left_out` has at a
    step take no part in it.
    """
    num_steps, size = max(map(len, orders)), len(orders[0][0])
    per_step = len(sources) * size * _row_bytes(sources[0])
    at_once = max(1, GATHER_BYTES // max(1, per_step))
    for start in range(first, num_steps, at_once):
        steps = range(start, min(start + at_once, num_steps))
        numbers = _pad([order[start : steps.stop] for order in orders])
        batch, target, weight = _gather(sources, numbers)
        for step in steps:
            groups = []
            for places, part in _divide(orders, step, left_out, (step - start) * size):
                # All of them: no copy.
                at: slice | list[int] = slice(None) if len(places) == len(sources) else places
                groups.append(
                    Group(
                        places,
                        step,
                        numbers[at, part],
                        {kind: values[at, part] for kind, values in batch.items()},
                        target[at, part],
                        None if weight is None else weight[at, part],
                    )
                )
            yield groups


def _divide(
    orders: Sequence[Sequence[Tensor]], step: int, left_out: Collection[int], offset: int
) -> Iterator[tuple[list[int], slice]]:
    """Yield the places of each group, and where its rows lie among those that were gathered."""
    of_size: dict[int, list[int]] = {}
    for place, order in enumerate(orders):
        if step < len(order) and place not in left_out:
            of_size.setdefault(len(order[step]), []).append(place)
    for size, places in of_size.items():
        yield places, slice(offset, offset + size)


def _pad(steps: Sequence[Sequence[Tensor]]) -> Tensor:
    """The numbers of the rows of some steps (members, rows); where a member has fewer, row 0."""
    rows = [torch.cat(list(own)) if own else torch.empty(0, dtype=torch.int64) for own in steps]
    numbers = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for place, own in enumerate(rows):
        numbers[place, : len(own)] = own
    return numbers


def _gather(
    sources: Sequence[TensorSource], numbers: Tensor
) -> tuple[Batch, Tensor, Tensor | None]:
    """The rows `numbers` (members, rows) of each source, as (members, rows, …)."""
    shape = numbers.shape
    if all(source is sources[0] for source in sources):
        # As of replicas, which share their rows.
        sources, numbers = sources[:1], numbers.reshape(1, -1)

    def take(tensors: Sequence[Tensor]) -> Tensor:
        # Twice as fast as by an index in brackets.
        taken = [t.index_select(0, own) for t, own in zip(tensors, numbers, strict=True)]
        joined = taken[0] if len(taken) == 1 else torch.stack(taken)
        return joined.view(*shape, *tensors[0].shape[1:])

    batch = {kind: take([source.batch[kind] for source in sources]) for kind in sources[0].batch}
    weights = [source.weight for source in sources if source.weight is not None]
    target = take([source.target for source in sources])
    return batch, target, take(weights) if weights else None


def _row_bytes(source: TensorSource) -> int:
    batch, _ = source.take(slice(0, 1))
    return sum(values.numel() * values.element_size() for values in batch.values())
