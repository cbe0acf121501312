"""The training loop: `run_epochs` goes over the epochs, `train_epoch` over the steps.

`step/step.py` has a step, `closure_step.py` one of an optimizer that evaluates the loss several
times.

A source (`data/source.py`) hands over the rows of each step; those that lie on the device are a
slice by a permutation. On a GPU a step does not wait for the device: losses and norms are
summed there and read once an epoch.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stages.tensors.target_errors import root_in_units, square_errors
from stages.training.averaging import (
    add_to_average,
    batch_norms,
    is_averaged,
    recompute_norms,
    set_learning_rates,
    swa_lr_active,
    update_average,
)
from stages.training.build import Assembly, StepFn, assemble
from stages.training.choices import Choices
from stages.training.data.batching import epoch_batches, local_batches, seed_of_epoch
from stages.training.data.source import Source, rows_at_once
from stages.training.device.distributed import World
from stages.training.device.fsdp import gather_weights, is_sharded, local
from stages.training.far_values import stop_when_far
from stages.training.optim.monitored_metric import monitored_direction, monitored_metric
from stages.training.optim.schedule import moves_by_step
from stages.training.params import TrainParams
from stages.training.state import Data, Epoch, EpochTotals, Result, State
from stages.training.step.divergence import divergence_error, has_diverged, stop_when_diverged
from stages.training.step.loss_of_scores import compute_loss, prepare_scores
from stages.training.step.step import StepContext


def train(
    model: nn.Module,
    data: Data,
    params: TrainParams,
    seed: int,
    world: World,
    on_epoch_end: Callable[[Epoch, nn.Module], None],
    load_state: Callable[[State], None] = lambda _: None,
    on_step_end: Callable[[State], None] = lambda _: None,
    choices: Choices | None = None,
) -> Result:
    """Train `model` in place on its device; return the history and the weights to keep.

    With early stopping these are the weights of the best epoch on validation, else of the last.
    With FSDP the first process of each machine has all of them, in the host's memory. The same
    seed gives the same bits for one number of processes, and the same numbers within rounding for
    any other.

    `on_epoch_end` is called after every epoch and may end the training by raising. `on_step_end`
    is called with the state after every step and every epoch, and `load_state` before the first
    one: when it loads what was saved, the training resumes there and ends with the same bits.
    `choices` are made by the rules unless they are handed in.

    Raises UserError for names that don't fit, DivergedError when the loss is not finite any more.
    """
    assembly = assemble(model, data, params, seed, world, choices)
    load_state(assembly.state)
    for epoch_result, eval_model in run_epochs(assembly, data, params, seed, on_step_end):
        on_epoch_end(epoch_result, eval_model)
    result = assembly.state.result
    if is_sharded(model):
        result.weights = gather_weights(model, result.weights, world)
    return result


def run_epochs(
    assembly: Assembly,
    data: Data,
    params: TrainParams,
    seed: int,
    on_step_end: Callable[[State], None] = lambda _: None,
) -> Iterator[tuple[Epoch, nn.Module]]:
    """Train epoch by epoch from where the state is; yield each one's result and evaluated model.

    What follows an epoch (a move of the schedule) is done when the next one is asked for. Raises
    DivergedError when the loss is not finite any more.
    """
    sign = 1 if monitored_direction(params, data.task) == "min" else -1
    context, state = assembly.context, assembly.state
    world, schedule, result = context.world, state.schedule, state.result
    while len(result.history) < params.epochs and not is_out_of_patience(result, params):
        epoch = len(result.history) + 1
        swa_sets_lr = swa_lr_active(params, epoch)
        if swa_sets_lr:
            set_learning_rates(state.optimizer, assembly.swa_rates)
        context.dropout_rng.begin_epoch(seed, epoch)
        train_epoch(context, assembly.train_step, data.train, state, params, seed, on_step_end)
        context.dropout_rng.end_epoch()
        eval_model = find_eval_model(state, context, data.train, params, seed)
        for buffer in eval_model.buffers():
            # Each process has counted rows of its own; the first one's counts are kept.
            world.broadcast(buffer)
        loss_and_metric = validate(eval_model, data.validation, assembly.loss_fn, data, world)
        epoch_result = end_epoch(epoch, state.totals, loss_and_metric, data, world)

        result.history.append(epoch_result)
        monitored = monitored_value(epoch_result, params)
        stopping = params.early_stopping
        best = None if result.best_epoch is None else monitored_value(result.best_epoch, params)
        if stopping is None or best is None or sign * monitored < sign * best:
            result.best_epoch = epoch_result
            result.weights = {k: local(v).clone() for k, v in eval_model.state_dict().items()}
        yield epoch_result, eval_model
        if not (swa_sets_lr or moves_by_step(schedule)):
            # Others have moved in each step, or stand still while `train.swa` sets the rate.
            if isinstance(schedule, ReduceLROnPlateau):
                schedule.step(monitored)
            else:
                schedule.step()
        state.totals = EpochTotals(consecutive_skips=state.totals.consecutive_skips)
        on_step_end(state)


def train_epoch(
    context: StepContext,
    train_step: StepFn,
    source: Source,
    state: State,
    params: TrainParams,
    seed: int,
    on_step_end: Callable[[State], None],
) -> None:
    """Take the steps of one epoch that are still to do; they add to `state.totals`."""
    sums = state.totals
    if sums.num_steps == 0:
        sums.learning_rate = state.optimizer.param_groups[0]["lr"]
    context.wrapped_model.train()
    for norm in context.frozen_norms:
        norm.eval()
    epoch = len(state.result.history) + 1
    steps_per_epoch = math.ceil(len(source) / params.batch_size)
    moves = moves_by_step(state.schedule) and not swa_lr_active(params, epoch)
    order = epoch_batches(len(source), params.batch_size, seed, epoch)
    for batch in local_batches(
        source, order[sums.num_steps :], context.world, seed_of_epoch(seed, epoch)
    ):
        number = (epoch - 1) * steps_per_epoch + sums.num_steps
        train_step(batch, state)
        if moves:
            state.schedule.step()
        if state.average is not None and params.ema is not None:
            update_average(state.average, state.model, params.ema, number)
        if has_diverged(sums, steps_per_epoch, scaled=context.scaler is not None):
            raise divergence_error(context, source, batch, epoch, state)
        on_step_end(state)


def find_eval_model(
    state: State, context: StepContext, source: Source, params: TrainParams, seed: int
) -> nn.Module:
    """The model to evaluate and keep after an epoch: the model itself, or the average."""
    epoch = len(state.result.history) + 1
    if state.average is None or (params.swa is not None and not is_averaged(params, epoch)):
        return state.model
    if params.swa is not None:
        add_to_average(state.average, state.model, epoch - params.swa.start)
        if norms := batch_norms(state.average, state.model, context.frozen_norms):
            order = torch.cat(epoch_batches(len(source), params.batch_size, seed, epoch))
            recompute_norms(state.average, norms, source, order, context.world)
    return state.average


def end_epoch(
    epoch: int, sums: EpochTotals, validation: tuple[float, float], data: Data, world: World
) -> Epoch:
    """The results of the epoch, over all processes.

    Raises DivergedError when a loss is not finite.
    """
    device = data.train.target.device
    names = sorted(sums.logged)
    local = [float(sums.loss), float(sums.rows), *(float(sums.logged[name]) for name in names)]
    loss, rows, *logged = world.all_reduce_sum(
        torch.tensor(local, dtype=torch.float64, device=device)
    ).tolist()
    applied = float(sums.steps_applied)
    epoch_result = Epoch(
        epoch=epoch,
        learning_rate=sums.learning_rate,
        gradient_norm=float(sums.norm) / applied if applied else math.nan,
        train_loss=loss / rows if rows else math.nan,
        validation_loss=validation[0],
        metric=validation[1],
        skipped_steps=sums.num_steps - round(applied),
        # Each process's part is scaled to be the batch's, as its gradient is.
        logged={
            name: total / (world.size * sums.steps_logged)
            for name, total in zip(names, logged, strict=True)
        },
    )
    if math.isfinite(epoch_result.train_loss) and not math.isfinite(epoch_result.validation_loss):
        stop_when_far(epoch, data)
    stop_when_diverged(epoch, epoch_result.train_loss, epoch_result.validation_loss)
    return epoch_result


def validate(
    model: nn.Module, split: Source, loss_fn: nn.Module, data: Data, world: World
) -> tuple[float, float]:
    """Mean loss over rows and the metric of the task, over all processes' shares of the split.

    Where rows have weights, both are weighted means.
    """
    # FSDP uses the buffers of its first all-gather again; made in inference mode, no later step
    # could write to them.
    with torch.no_grad() if is_sharded(model) else torch.inference_mode():
        return _evaluate(model, split, loss_fn, data, world)


def _evaluate(
    model: nn.Module, split: Source, loss_fn: nn.Module, data: Data, world: World
) -> tuple[float, float]:
    model.eval()
    totals = torch.zeros(2, dtype=torch.float64, device=split.target.device)
    size, weights = rows_at_once(split), split.weight
    for first in range(0, len(split), world.size * size):
        start = first + world.rank * size
        has_rows = start < len(split)
        # Every process calls the model equally often: to gather its weights may take them all.
        rows = slice(start, start + size) if has_rows else slice(1)
        batch, target = split.take(rows)
        scores = prepare_scores(model(batch), target)
        if not has_rows:
            continue
        weight = None if weights is None else weights[rows]
        totals[0] += compute_loss(loss_fn, scores, target, weight) * len(target)
        if data.task == "classification":
            found = scores.argmax(1) == target
        else:
            found = square_errors(scores, target, data.scale)
        totals[1] += (found if weight is None else found * weight).sum()
    loss, metric = (world.all_reduce_sum(totals) / len(split)).tolist()
    return loss, metric if data.task == "classification" else root_in_units(metric, data.scale)


def is_out_of_patience(result: Result, params: TrainParams) -> bool:
    """Check whether the kept epoch is as far back as early stopping waits for a better one."""
    stopping = params.early_stopping
    if stopping is None or stopping.patience is None or result.best_epoch is None:
        return False
    return len(result.history) - result.best_epoch.epoch >= stopping.patience


def monitored_value(epoch: Epoch, params: TrainParams) -> float:
    """The value of the watched metric after an epoch."""
    return epoch.validation_loss if monitored_metric(params) == "loss" else epoch.metric
