"""The loop. `train` goes over the epochs, `train_epoch` over the steps; nothing is hidden.

Rows lie on the device already (`stages.common.batches`), so a batch is a slice by a
permutation, and nothing in a step waits for the device: losses and norms are summed there and
read once an epoch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from stages.common.batches import Batch, take
from stages.common.errors import Problem, UserError
from stages.common.layers import Masks, share_masks
from stages.train.machine import World
from stages.train.optimizers import (
    STEPWISE,
    make_loss,
    make_optimizer,
    make_schedule,
    metric_of,
    watched_direction,
    watched_metric,
)
from stages.train.params import TrainParams

EVALUATION_ROWS = 4096


@dataclass(frozen=True)
class Split:
    """The rows to train or validate on, on the device: features by kind, and the target (rows,)."""

    batch: Batch
    target: Tensor

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Data:
    """Both splits and what the target is. `deviation` turns a standardised error into units."""

    train: Split
    validation: Split
    task: str
    deviation: float = 1.0

    @property
    def metric(self) -> str:
        """The validation metric that is reported beside the loss."""
        return metric_of(self.task)


@dataclass(frozen=True)
class Epoch:
    """One row of `history.csv`. `metric` is accuracy, or RMSE in the target's units."""

    epoch: int
    learning_rate: float
    gradient_norm: float
    train_loss: float
    validation_loss: float
    metric: float


@dataclass
class Result:
    """The history so far, and the epoch whose weights are kept: the best one, or the last."""

    history: list[Epoch] = field(default_factory=list)
    kept: Epoch | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)


class DivergedError(UserError):
    """The loss is no number any more."""


def train(
    model: nn.Module,
    data: Data,
    params: TrainParams,
    seed: int,
    world: World,
    watch: Callable[[Epoch, nn.Module], None],
    restore: Callable[[nn.Module, Optimizer, LRScheduler], Result] | None = None,
    save: Callable[[Result, nn.Module, Optimizer, LRScheduler], None] | None = None,
) -> Result:
    """Train `model` in place on its device; return the history and the weights to keep.

    With early stopping they are those of the epoch that was best on validation.
    `watch` is called after every epoch and may end the training by raising. The same seed
    gives the same bits for one world size, and the same numbers within rounding for any other.
    `save` is handed, after every epoch, all that the next one depends on; with a `restore` that
    puts it back the training goes on from there, and ends with the same bits.
    Raises UserError for names that don't fit, DivergedError when the loss is no number.
    """
    direction = watched_direction(params, data.task)
    sign = 1 if direction == "min" else -1
    loss_of = make_loss(params, data.task)
    optimizer = make_optimizer(model, params)
    steps_per_epoch = math.ceil(len(data.train) / params.batch_size)
    schedule = make_schedule(optimizer, params, steps_per_epoch, direction)
    network = DistributedDataParallel(model) if world.size > 1 else model

    # For what a model of one's own draws: dropout of the zoo follows from seed, epoch and step.
    torch.manual_seed(seed)
    masks = share_masks(model, data.train.target.device)
    result = Result() if restore is None else restore(model, optimizer, schedule)
    for epoch in range(len(result.history) + 1, params.epochs + 1):
        if is_out_of_patience(result, params):
            break
        learning_rate = optimizer.param_groups[0]["lr"]
        rows = batches(len(data.train), params.batch_size, seed, epoch)
        masks.begin_epoch(seed, epoch)
        loss, norm = train_epoch(
            network, data.train, rows, masks, loss_of, optimizer, schedule, params, world
        )
        masks.end_epoch()
        validation_loss, metric = validate(model, data.validation, loss_of, data, world)
        done = Epoch(epoch, learning_rate, norm, loss, validation_loss, metric)
        _stop_when_diverged(done)

        result.history.append(done)
        watched = watched_value(done, params)
        stopping = params.early_stopping
        best = None if result.kept is None else watched_value(result.kept, params)
        if stopping is None or best is None or sign * watched < sign * best:
            result.kept = done
            result.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        watch(done, model)
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(watched)
        elif not isinstance(schedule, STEPWISE):
            schedule.step()
        if save is not None:
            save(result, model, optimizer, schedule)
    return result


def train_epoch(
    network: nn.Module,
    split: Split,
    batches: Iterator[Tensor],
    masks: Masks,
    loss_of: nn.Module,
    optimizer: Optimizer,
    schedule: LRScheduler,
    params: TrainParams,
    world: World,
) -> tuple[float, float]:
    """One epoch of steps; returns the mean loss over rows and the mean gradient norm over steps."""
    network.train()
    limit = math.inf if params.clip_norm is None else params.clip_norm
    weights = list(network.parameters())
    device = split.target.device
    total_loss = torch.zeros((), dtype=torch.float64, device=device)
    total_norm = torch.zeros((), dtype=torch.float64, device=device)
    num_steps = 0
    for global_rows in batches:
        mine, share = shard(len(global_rows), world)
        rows = global_rows[mine].to(device)
        masks.begin_step(num_steps, len(global_rows), mine)

        optimizer.zero_grad()
        scores = network(take(split.batch, rows))
        loss = loss_of(fit_to_target(scores, split.target), split.target[rows]) * share
        loss.backward()
        norm = nn.utils.clip_grad_norm_(weights, limit)
        optimizer.step()

        if isinstance(schedule, STEPWISE):
            schedule.step()
        total_loss += loss.detach() * (len(global_rows) / world.size)
        total_norm += norm
        num_steps += 1
    return world.sum(total_loss).item() / len(split), total_norm.item() / num_steps


def batches(num_rows: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Row numbers batch by batch: all rows once, in an order that seed and epoch alone decide."""
    # torch's CPU generator uses 32 bits of a seed: mix both numbers into as many.
    mixed = np.random.SeedSequence([seed, epoch]).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(mixed))
    order = torch.randperm(num_rows, generator=generator)
    for start in range(0, num_rows, batch_size):
        yield order[start : start + batch_size]


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
    mine = slice(world.rank, num_rows, world.size)
    return mine, len(range(num_rows)[mine]) * world.size / num_rows


def fit_to_target(scores: Tensor, target: Tensor) -> Tensor:
    """Scores as the loss takes them: (rows,) beside real values, (rows, classes) beside codes."""
    return scores.squeeze(1) if target.is_floating_point() else scores


@torch.inference_mode()
def validate(
    model: nn.Module, split: Split, loss_of: nn.Module, data: Data, world: World
) -> tuple[float, float]:
    """Mean loss over rows and the metric of the task, over all processes' shares of the split."""
    model.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=split.target.device)
    for start in range(world.rank * EVALUATION_ROWS, len(split), world.size * EVALUATION_ROWS):
        rows = slice(start, start + EVALUATION_ROWS)
        target = split.target[rows]
        scores = fit_to_target(model(take(split.batch, rows)), target)
        totals[0] += loss_of(scores, target) * len(target)
        if data.task == "classification":
            totals[1] += (scores.argmax(1) == target).sum()
        else:
            totals[1] += (scores - target).square().sum()
    loss, metric = (world.sum(totals) / len(split)).tolist()
    return loss, metric if data.task == "classification" else math.sqrt(metric) * data.deviation


def is_out_of_patience(result: Result, params: TrainParams) -> bool:
    """Whether the kept epoch is as far back as early stopping waits for a better one."""
    stopping = params.early_stopping
    if stopping is None or stopping.patience is None or result.kept is None:
        return False
    return len(result.history) - result.kept.epoch >= stopping.patience


def watched_value(epoch: Epoch, params: TrainParams) -> float:
    """The value of the watched metric after an epoch."""
    return epoch.validation_loss if watched_metric(params) == "loss" else epoch.metric


def _stop_when_diverged(epoch: Epoch) -> None:
    if not (math.isfinite(epoch.train_loss) and math.isfinite(epoch.validation_loss)):
        message = (
            f"the loss is not a number any more in epoch {epoch.epoch}; try a tenth of the "
            "learning rate, or clip the gradients (train.clip_norm)"
        )
        raise DivergedError(Problem(message, key="train.optimizer.lr"))
