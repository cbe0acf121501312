"""A batch norm can't be trained on one row alone: said before the first step, not at its end.

How many rows go through a model at once follows from the rows, the batches, the processes and the
micro-batches; whether one row is too few for it, it says itself.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stages.common.errors import Problem, UserError
from stages.tensors.batch import take
from stages.training.data.batching import micro_batches, shard
from stages.training.data.source import Source
from stages.training.device.distributed import World
from stages.training.params import TrainParams
from stages.training.step.buffer_snapshot import find_buffers, snapshot_buffers

HOW = "another size does, or GroupNorm and LayerNorm in the model, which need no other rows"


def check_one_row(
    model: nn.Module, still: Sequence[nn.Module], rows: Source, params: TrainParams, world: World
) -> None:
    """Stop if one row would go through `model` alone in training, and it can't take that.

    The norms `still` are in evaluation mode then. What the model counts is left as it is. Raises
    UserError; of several processes all do.
    """
    model.train()
    for norm in still:
        norm.eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    problem = find_single(len(rows), params, world) if norms else None
    if problem is None:
        return
    weight = next(model.parameters())
    batch, _ = rows.take(slice(0, 1))
    before = snapshot_buffers(find_buffers(model))
    try:
        with torch.no_grad():
            model(take({k: values.to(weight.device) for k, values in batch.items()}, slice(0, 1)))
    except ValueError as error:
        message = f"{problem.message}, which the model can't be trained on: {error}\n{HOW}"
        raise UserError(replace(problem, message=message)) from None
    finally:
        before.put_back()


def find_single(num_rows: int, params: TrainParams, world: World) -> Problem | None:
    """The mistake by which one row alone would go through a model, with the key to change.

    None: nowhere.
    """
    size, key = params.batch_size, "train.batch_size"
    sizes = {min(size, num_rows), num_rows % size} - {0}
    if 1 in sizes:
        of = f"{num_rows:,} rows in batches of {size:,} leave a batch of one row"
        return Problem("each batch has one row" if size == 1 else of, key, str(size))
    for batch in sorted(sizes):
        others = [replace(world, rank=rank) for rank in range(world.size)]
        shares = [range(batch)[shard(batch, each)[0]] for each in others]
        if any(len(share) == 1 for share in shares):
            message = f"of a batch of {batch:,} rows one of {world.size} processes has one row"
            return Problem(message, key, str(size))
        micro = params.micro_batch_size
        for share in shares:
            parts = micro_batches(len(share), micro)
            if any(part is not None and len(share[part]) == 1 for part in parts):
                message = f"{len(share):,} rows in parts of {micro} leave a part of one row"
                return Problem(message, "train.micro_batch_size", str(micro))
    return None
