"""The loop. `train` goes over the epochs, `train_epoch` over the steps; `step.py` is one of them.

Rows lie on the device already (`stages.common.batches`), so a batch is a slice by a
permutation, and nothing in a step waits for the device: losses and norms are summed there and
read once an epoch.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from stages.common.batches import take
from stages.common.layers import share_masks
from stages.train.diverged import lost, stop_when_diverged
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
from stages.train.step import Split, Step, Sums, fit_to_target, is_lost, update_average

EVALUATION_ROWS = 4096


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
    """One row of `history.csv`. `metric` is accuracy, or RMSE in the target's units.

    `skipped_steps` were not applied, because their loss or gradient was no finite number; the
    means are over the others.
    """

    epoch: int
    learning_rate: float
    gradient_norm: float
    train_loss: float
    validation_loss: float
    metric: float
    skipped_steps: int = 0


@dataclass
class Result:
    """The history so far, and the epoch whose weights are kept: the best one, or the last."""

    history: list[Epoch] = field(default_factory=list)
    kept: Epoch | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class State:
    """All that the next step depends on, beside the recipe and the data: what a checkpoint holds.

    `average` follows the weights (`train.ema`) and is what is validated and kept.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    average: nn.Module | None = None
    result: Result = field(default_factory=Result)
    sums: Sums = field(default_factory=Sums)


def train(
    model: nn.Module,
    data: Data,
    params: TrainParams,
    seed: int,
    world: World,
    watch: Callable[[Epoch, nn.Module], None],
    restore: Callable[[State], None] = lambda _: None,
    save: Callable[[State], None] = lambda _: None,
) -> Result:
    """Train `model` in place on its device; return the history and the weights to keep.

    With early stopping they are those of the epoch that was best on validation.
    `watch` is called after every epoch and may end the training by raising. The same seed
    gives the same bits for one world size, and the same numbers within rounding for any other.
    `save` is handed the state after every step and every epoch; with a `restore` that puts it back
    the training goes on from there, and ends with the same bits.
    Raises UserError for names that don't fit, DivergedError when the loss is no number.
    """
    direction = watched_direction(params, data.task)
    sign = 1 if direction == "min" else -1
    loss_of = make_loss(params, data.task)
    optimizer = make_optimizer(model, params)
    steps_per_epoch = math.ceil(len(data.train) / params.batch_size)
    schedule = make_schedule(optimizer, params, steps_per_epoch, direction)
    average = (
        None if params.ema is None else copy.deepcopy(model).requires_grad_(requires_grad=False)
    )
    network = DistributedDataParallel(model) if world.size > 1 else model
    # For what a model of one's own draws: dropout of the zoo follows from seed, epoch and step.
    torch.manual_seed(seed)
    limit = math.inf if params.clip_norm is None else params.clip_norm
    masks = share_masks(model, data.train.target.device)
    weights = list(model.parameters())
    step = Step(
        network,
        data.train,
        loss_of,
        optimizer,
        masks,
        world,
        limit,
        params.micro_batch_size,
        weights,
    )

    state = State(model, optimizer, schedule, average)
    restore(state)
    result = state.result
    while len(result.history) < params.epochs and not is_out_of_patience(result, params):
        epoch = len(result.history) + 1
        rows = batches(len(data.train), params.batch_size, seed, epoch)
        masks.begin_epoch(seed, epoch)
        train_epoch(step, rows, state, params, save)
        masks.end_epoch()
        judged = model if average is None else average
        figures = validate(judged, data.validation, loss_of, data, world)
        device = data.train.target.device
        done = _end_epoch(epoch, state.sums, figures, device, world)

        result.history.append(done)
        watched = watched_value(done, params)
        stopping = params.early_stopping
        best = None if result.kept is None else watched_value(result.kept, params)
        if stopping is None or best is None or sign * watched < sign * best:
            result.kept = done
            result.weights = {k: v.detach().clone() for k, v in judged.state_dict().items()}
        watch(done, judged)
        if isinstance(schedule, ReduceLROnPlateau):
            schedule.step(watched)
        elif not isinstance(schedule, STEPWISE):
            schedule.step()
        state.sums = Sums(lost=state.sums.lost)
        save(state)
    return result


def train_epoch(
    step: Step,
    batches: Iterator[Tensor],
    state: State,
    params: TrainParams,
    save: Callable[[State], None],
) -> None:
    """The steps of one epoch that are still to do; what they come to is in `state.sums`."""
    sums = state.sums
    if sums.num_steps == 0:
        sums.learning_rate = state.optimizer.param_groups[0]["lr"]
    step.network.train()
    epoch = len(state.result.history) + 1
    steps_per_epoch = math.ceil(len(step.split) / params.batch_size)
    for number, rows in enumerate(batches):
        if number < sums.num_steps:
            continue
        step.take(rows, sums)
        if isinstance(state.schedule, STEPWISE):
            state.schedule.step()
        if state.average is not None and params.ema is not None:
            update_average(
                state.average, state.model, params.ema, (epoch - 1) * steps_per_epoch + number
            )
        if is_lost(sums, steps_per_epoch):
            raise lost(state.model, step, rows, epoch, sums)
        save(state)


def _end_epoch(
    epoch: int, sums: Sums, validation: tuple[float, float], device: torch.device, world: World
) -> Epoch:
    """What the epoch comes to, over all processes. Raises DivergedError when that is no number."""
    local = [float(sums.loss), float(sums.rows)]
    loss, rows = world.sum(torch.tensor(local, dtype=torch.float64, device=device)).tolist()
    applied = float(sums.applied)
    done = Epoch(
        epoch=epoch,
        learning_rate=sums.learning_rate,
        gradient_norm=float(sums.norm) / applied if applied else math.nan,
        train_loss=loss / rows if rows else math.nan,
        validation_loss=validation[0],
        metric=validation[1],
        skipped_steps=sums.num_steps - round(applied),
    )
    stop_when_diverged(epoch, done.train_loss, done.validation_loss)
    return done


def batches(num_rows: int, batch_size: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Row numbers batch by batch: all rows once, in an order that seed and epoch alone decide."""
    # torch's CPU generator uses 32 bits of a seed: mix both numbers into as many.
    mixed = np.random.SeedSequence([seed, epoch]).generate_state(1)[0]
    generator = torch.Generator().manual_seed(int(mixed))
    order = torch.randperm(num_rows, generator=generator)
    for start in range(0, num_rows, batch_size):
        yield order[start : start + batch_size]


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
