"""Averages of the weights: over the steps (`train.ema`), and over the ends of the last epochs.

`train.swa` says from which epoch on the second is taken, and at which learning rate: stochastic
weight averaging. (Izmailov, Podoprikhin, Garipov, Vetrov, Wilson: Averaging weights leads to wider
optima and better generalization, UAI 2018.) The arithmetic is that of torch.optim.swa_utils. How
many epochs are in the average follows from the epoch that ends, so a training resumes from a
checkpoint with the same bits.
"""

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from stages.tensors.batch import take
from stages.training.data.source import Source, rows_at_once
from stages.training.device.distributed import World
from stages.training.params import TrainParams


def is_averaged(params: TrainParams, epoch: int) -> bool:
    """Check whether the weights after `epoch` (from 1) are in the average."""
    return params.swa is not None and epoch >= params.swa.start


def swa_lr_active(params: TrainParams, epoch: int) -> bool:
    """Check whether `train.swa` sets the learning rate of `epoch` (from 1), not the schedule."""
    return is_averaged(params, epoch) and params.swa is not None and params.swa.lr is not None


def swa_rates(optimizer: Optimizer, params: TrainParams) -> list[float]:
    """The rate of each of the optimizer's groups while the schedule is held; none: it never is.

    As long as no schedule has touched it: groups are to each other as they are in the recipe.
    """
    if params.swa is None or params.swa.lr is None:
        return []
    base = optimizer.defaults["lr"]
    ratios = [group["lr"] / base if base else 1.0 for group in optimizer.param_groups]
    return [params.swa.lr * ratio for ratio in ratios]


def set_learning_rates(optimizer: Optimizer, rates: list[float]) -> None:
    """Give each of the optimizer's groups its rate."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


@torch.no_grad()
def add_to_average(average: nn.Module, model: nn.Module, num_averaged: int) -> None:
    """Take the weights of `model` into the mean of those of `num_averaged` epochs before.

    What is no weight, such as the statistics of a norm, is the model's.
    """
    means, weights = list(average.parameters()), list(model.parameters())
    if num_averaged == 0:
        for mean, weight in zip(means, weights, strict=True):
            mean.copy_(weight)
    else:
        update = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
        update(means, weights, num_averaged)
    for own_buffer, buffer in zip(average.buffers(), model.buffers(), strict=True):
        own_buffer.copy_(buffer)


def batch_norms(
    average: nn.Module, model: nn.Module, frozen: Collection[nn.Module]
) -> list[_BatchNorm]:
    """The batch norms of `average` that keep statistics, without those frozen in `model`."""
    pairs = zip(average.modules(), model.modules(), strict=True)
    return [
        own
        for own, norm in pairs
        if isinstance(own, _BatchNorm) and own.running_mean is not None and norm not in frozen
    ]


@torch.no_grad()
def recompute_norms(
    model: nn.Module, norms: list[_BatchNorm], source: Source, order: Tensor, world: World
) -> None:
    """Mean and variance of batch norms anew: those of other weights are not the average's.

    As torch's update_bn, but with everything else in evaluation mode, so that no dropout is in
    the statistics. The rows in the order of `order` (rows,) go through in parts; each process
    takes some of the parts, and the mean over all parts is everybody's. Rows that are not finite,
    from which no step has learned, are left out.
    """
    parts = torch.tensor_split(order, math.ceil(len(order) / rows_at_once(source)))
    own_parts = parts[world.rank :: world.size]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for rows in own_parts:
        batch, _ = source.take(rows)
        finite = [
            values.isfinite().reshape(len(values), -1).all(dim=1) for values in batch.values()
        ]
        if not (good := torch.stack(finite).all(dim=0)).all():
            batch = take(batch, good)
        model(batch)
    if len(own_parts) < math.ceil(len(parts) / world.size):
        # To gather sharded weights takes all processes: each calls the model equally often.
        model.eval()
        model(source.take(order[:1])[0])
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
        if world.size > 1:
            for value in (norm.running_mean, norm.running_var):
                assert value is not None
                world.all_reduce_sum(value.mul_(len(own_parts))).div_(len(parts))
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.fill_(len(parts))


def update_average(average: nn.Module, model: nn.Module, decay: float, number: int) -> None:
    """Move the average of the weights towards those after step `number`, from 0."""
    update = get_ema_multi_avg_fn(warm_decay(decay, number))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        update(list(average.parameters()), list(model.parameters()), number)
        for own_buffer, buffer in zip(average.buffers(), model.buffers(), strict=True):
            own_buffer.copy_(buffer)


def warm_decay(decay: float, number: int) -> float:
    """The decay of the average at step `number`, from 0.

    It starts from a shorter memory, (1 + t) / (10 + t), so that the first weights don't weigh on
    a short training (Polyak and Juditsky 1992; the warm-up as in TensorFlow's
    ExponentialMovingAverage).
    """
    return min(decay, (1 + number) / (10 + number))
