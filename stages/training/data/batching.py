"""Which rows are learned from when, and by whom: an epoch's order, a batch, a process's share.

The order follows from seed and epoch alone. A batch is divided over the processes; what a process
has of it may be divided again, into micro-batches that fit its memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.tensors.batch import Batch
from stages.training.data.source import Source
from stages.training.device.distributed import World


@dataclass(frozen=True)
class LocalBatch:
    """The rows of a batch that this process learns from.

    Of the `global_batch_size` rows of the whole batch, those at `local_rows`; `loss_scale`, by
    which their mean loss is multiplied (local rows * processes / batch size), makes the mean that
    DDP takes of the gradients that of the batch. `rows` (global_batch_size,) are the numbers of all
    of them; `batch` and `target` hold this process's, on the device, and so does `row_weights`
    (local rows,) where rows have weights.
    """

    global_batch_size: int
    local_rows: slice
    loss_scale: float
    rows: Tensor
    batch: Batch
    target: Tensor
    row_weights: Tensor | None = None


def epoch_batches(num_rows: int, batch_size: int, seed: int, epoch: int) -> tuple[Tensor, ...]:
    """Row numbers batch by batch: all rows once, in an order that seed and epoch alone decide."""
    generator = torch.Generator().manual_seed(seed_of_epoch(seed, epoch))
    return torch.split(torch.randperm(num_rows, generator=generator), batch_size)


def seed_of_epoch(seed: int, epoch: int) -> int:
    """The seed of an epoch: both numbers mixed into the 32 bits that torch's generator takes."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def local_batches(
    source: Source, order: Sequence[Tensor], world: World, seed: int
) -> Iterator[LocalBatch]:
    """Yield what this process learns from in each of the steps whose row numbers are `order`."""
    parts = [(rows, *shard(len(rows), world)) for rows in order]
    local = [rows if world.size == 1 else rows[part] for rows, part, _ in parts]
    fed = source.feed(local, seed)
    weights = _weights_of(source.weight, local)
    for (rows, part, factor), (batch, target), row_weights in zip(parts, fed, weights, strict=True):
        yield LocalBatch(len(rows), part, factor, rows, batch, target, row_weights)


def _weights_of(weight: Tensor | None, steps: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """The weights of each step's rows, on the device; None: rows have none."""
    if weight is None or not steps:
        return [None] * len(steps)
    # All at once: a copy in each step would be one more wait in each.
    order = torch.cat(list(steps)).to(weight.device)
    return torch.split(weight[order], [len(rows) for rows in steps])


def shard(num_rows: int, world: World) -> tuple[slice, float]:
    """Which rows of a batch are this process's, and its factor on their mean loss.

    With it, the mean of the gradients over processes (as DistributedDataParallel takes it) is
    the gradient of the whole batch's mean loss, however unevenly the rows divide.
    """
    if world.size == 1:
        return slice(None), 1.0
    if world.rank >= num_rows:
        # Every process must take part in every step; this one does so with no weight.
        return slice(1), 0.0
    local = slice(world.rank, num_rows, world.size)
    return local, len(range(num_rows)[local]) * world.size / num_rows


def micro_batches(num_rows: int, size: int | None) -> Iterator[slice | None]:
    """The parts of a process's rows that go through the model one after the other; None: all."""
    if size is None or size >= num_rows:
        yield None
        return
    for start in range(0, num_rows, size):
        yield slice(start, start + size)


def to_global_slice(batch: LocalBatch, part: slice) -> slice:
    """A part of a process's rows, as a slice of all rows of the batch."""
    rows = range(batch.global_batch_size)[batch.local_rows][part]
    return slice(rows.start, rows.stop, rows.step)
