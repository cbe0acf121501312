"""The loop. `train` goes over the epochs, `train_epoch` over the steps; `step/step.py` is one of
them, `closure_step.py` one of an optimizer that evaluates the loss several times.

A source (`data/source.py`) hands over the rows of each step; those that lie on the device are a
slice by a permutation. Nothing in a step waits for the device: losses and norms are summed there
and read once an epoch.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stages.training.averaging import (
    add_to_average,
    hold,
    is_averaged,
    is_held,
    norms_of,
    recompute_norms,
    update_average,
)
from stages.training.build import assemble
from stages.training.data.batching import Share, batches, seed_of_epoch, shares
from stages.training.data.source import Source, rows_at_once
from stages.training.device.distributed import World
from stages.training.device.fsdp import gather_weights, is_sharded, local
from stages.training.far_values import stop_when_far
from stages.training.optim.monitored_metric import watched_direction, watched_metric
from stages.training.optim.schedule import moves_by_step
from stages.training.params import TrainParams
from stages.training.state import Data, Epoch, Result, State, Sums
from stages.training.step.divergence import is_lost, lost, stop_when_diverged
from stages.training.step.step import Step, fit_to_target


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

    With early stopping they are those of the epoch that was best on validation. Where the
    processes divide them, the first of each machine has them all, in the host's memory.
    `watch` is called after every epoch and may end the training by raising. The same seed
    gives the same bits for one world size, and the same numbers within rounding for any other.
    `save` is handed the state after every step and every epoch; with a `restore` that puts it back
    the training goes on from there, and ends with the same bits.
    Raises UserError for names that don't fit, DivergedError when the loss is no number.
    """
    sign = 1 if watched_direction(params, data.task) == "min" else -1
    made = assemble(model, data, params, seed, world)
    step, state, masks = made.step, made.state, made.step.masks
    schedule = state.schedule
    restore(state)
    result = state.result
    while len(result.history) < params.epochs and not is_out_of_patience(result, params):
        epoch = len(result.history) + 1
        held = is_held(params, epoch)
        if held:
            hold(state.optimizer, made.held_rates)
        masks.begin_epoch(seed, epoch)
        train_epoch(step, made.take, data.train, state, params, seed, save)
        masks.end_epoch()
        judged = _find_judged(state, step, data.train, params, seed)
        for buffer in judged.buffers():
            # Each process has counted rows of its own; the first one's counts are kept.
            world.spread(buffer)
        figures = validate(judged, data.validation, made.loss_of, data, world)
        done = _end_epoch(epoch, state.sums, figures, data, world)

        result.history.append(done)
        watched = watched_value(done, params)
        stopping = params.early_stopping
        best = None if result.kept is None else watched_value(result.kept, params)
        if stopping is None or best is None or sign * watched < sign * best:
            result.kept = done
            result.weights = {k: local(v).clone() for k, v in judged.state_dict().items()}
        watch(done, judged)
        if held or moves_by_step(schedule):
            pass
        elif isinstance(schedule, ReduceLROnPlateau):
            schedule.step(watched)
        else:
            schedule.step()
        state.sums = Sums(lost=state.sums.lost)
        save(state)
    if is_sharded(model):
        result.weights = gather_weights(model, result.weights, world)
    return result


def train_epoch(
    step: Step,
    take: Callable[[Share, State], None],
    source: Source,
    state: State,
    params: TrainParams,
    seed: int,
    save: Callable[[State], None],
) -> None:
    """The steps of one epoch that are still to do, each by `take`; they add to `state.sums`."""
    sums = state.sums
    if sums.num_steps == 0:
        sums.learning_rate = state.optimizer.param_groups[0]["lr"]
    step.network.train()
    for norm in step.still:
        norm.eval()
    epoch = len(state.result.history) + 1
    steps_per_epoch = math.ceil(len(source) / params.batch_size)
    moves = moves_by_step(state.schedule) and not is_held(params, epoch)
    order = batches(len(source), params.batch_size, seed, epoch)
    for share in shares(source, order[sums.num_steps :], step.world, seed_of_epoch(seed, epoch)):
        number = (epoch - 1) * steps_per_epoch + sums.num_steps
        take(share, state)
        if moves:
            state.schedule.step()
        if state.average is not None and params.ema is not None:
            update_average(state.average, state.model, params.ema, number)
        if is_lost(sums, steps_per_epoch, scaled=step.scaler is not None):
            raise lost(step, source, share, epoch, state)
        save(state)


def _find_judged(
    state: State, step: Step, source: Source, params: TrainParams, seed: int
) -> nn.Module:
    """What is judged and kept after an epoch: the model, or the average of its weights."""
    epoch = len(state.result.history) + 1
    if state.average is None or (params.swa is not None and not is_averaged(params, epoch)):
        return state.model
    if params.swa is not None:
        add_to_average(state.average, state.model, epoch - params.swa.start)
        if norms := norms_of(state.average, state.model, step.still):
            order = torch.cat(batches(len(source), params.batch_size, seed, epoch))
            recompute_norms(state.average, norms, source, order, step.world)
    return state.average


def _end_epoch(
    epoch: int, sums: Sums, validation: tuple[float, float], data: Data, world: World
) -> Epoch:
    """What the epoch comes to, over all processes. Raises DivergedError when that is no number."""
    device = data.train.target.device
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
    if math.isfinite(done.train_loss) and not math.isfinite(done.validation_loss):
        stop_when_far(epoch, data)
    stop_when_diverged(epoch, done.train_loss, done.validation_loss)
    return done


def validate(
    model: nn.Module, split: Source, loss_of: nn.Module, data: Data, world: World
) -> tuple[float, float]:
    """Mean loss over rows and the metric of the task, over all processes' shares of the split."""
    # Divided weights stay where they are gathered first, and no step could write to a place that
    # inference mode has made.
    with torch.no_grad() if is_sharded(model) else torch.inference_mode():
        return _judge(model, split, loss_of, data, world)


def _judge(
    model: nn.Module, split: Source, loss_of: nn.Module, data: Data, world: World
) -> tuple[float, float]:
    model.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=split.target.device)
    size = rows_at_once(split)
    for first in range(0, len(split), world.size * size):
        start = first + world.rank * size
        has_rows = start < len(split)
        # Every process calls the model equally often: to gather its weights may take them all.
        rows = slice(start, start + size) if has_rows else slice(1)
        batch, target = split.take(rows)
        scores = fit_to_target(model(batch), target)
        if not has_rows:
            continue
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
