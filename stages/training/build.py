"""Builds loss, optimizer, schedule, averages and the wrapped model around a model."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stages.model.dropout import DropoutRng, share_dropout_rng
from stages.training.averaging import swa_rates
from stages.training.choices import Choices, make_choices
from stages.training.data.batching import LocalBatch, shard
from stages.training.data.fit_model import fit_model
from stages.training.device.compile import compile_model
from stages.training.device.distributed import World
from stages.training.device.fsdp import keep_parts, shard_model, share_scaler, total_norm
from stages.training.device.memory_format import put_channels_last, with_channels_last
from stages.training.device.precision import casting, make_scaler
from stages.training.device.rng import seed_generators
from stages.training.optim.class_weights import weigh_classes
from stages.training.optim.loss import make_loss
from stages.training.optim.monitored_metric import monitored_direction
from stages.training.optim.objective import make_objective
from stages.training.optim.optimizer import make_optimizer, needs_closure
from stages.training.optim.param_groups import freeze
from stages.training.optim.registry import resolve
from stages.training.optim.schedule import make_schedule
from stages.training.params import NUM_CLASSES, TrainParams
from stages.training.state import Data, Result, State
from stages.training.step.augmentation import make_augment
from stages.training.step.buffer_snapshot import find_buffers
from stages.training.step.closure_step import closure_step
from stages.training.step.one_row import check_one_row
from stages.training.step.step import (
    StepContext,
    build_ddp_buckets,
    train_step,
    train_step_on_device,
)

StepFn = Callable[[LocalBatch, State], None]


@dataclass(frozen=True)
class Assembly:
    """One training, put together and not begun.

    `train_step` takes a step with `context`: the usual one, or what the optimizer or the device
    needs. `swa_rates` are those of the optimizer's groups while `train.swa` holds the schedule.
    """

    context: StepContext
    train_step: StepFn
    state: State
    loss_fn: nn.Module
    swa_rates: list[float]


def assemble(
    model: nn.Module,
    data: Data,
    params: TrainParams,
    seed: int,
    world: World,
    choices: Choices | None = None,
) -> Assembly:
    """Loss, optimizer, schedule and averages around `model`, which is trained in place.

    `choices` are made here unless they are handed in. Raises UserError for names that don't fit.
    """
    device = data.train.target.device
    sample, _ = data.train.take(slice(0, 1))
    if choices is None:
        choices = make_choices(model, data, sample, params, world)
    loss_fn = _make_loss(model, data, params)
    fit_model(model, data.train, data.words, seed)
    # Before anything else looks at the weights: which of them are trained.
    frozen_norms = [] if params.groups is None else freeze(model, params.groups)
    check_one_row(model, frozen_norms, data.train, params, world)
    resolved = resolve("optimizer", params.optimizer)
    by_closure = needs_closure(resolved[0])
    # FSDP and LBFGS flatten the weights, which takes them in the usual order; images may differ.
    if choices.channels_last and not choices.sharded and not by_closure:
        put_channels_last(model)
    average = None
    if params.ema is not None or params.swa is not None:
        average = copy.deepcopy(model).requires_grad_(requires_grad=False)
    if choices.sharded:
        for each in (model,) if average is None else (model, average):
            shard_model(each, device, world)
    optimizer = make_optimizer(model, params, resolved)
    trainable_params = [weight for weight in model.parameters() if weight.requires_grad]
    if choices.sharded:
        trainable_params = keep_parts(trainable_params, optimizer)
    rates = swa_rates(optimizer, params)
    steps_per_epoch = math.ceil(len(data.train) / params.batch_size)
    direction = monitored_direction(params, data.task)
    schedule = make_schedule(optimizer, params, steps_per_epoch, direction)
    result = Result(micro_batch_size=params.micro_batch_size)
    dropout_rng = share_dropout_rng(model, device)
    scaler = make_scaler(choices.precision, device)
    if choices.sharded and scaler is not None:
        scaler = share_scaler(scaler, device)
    augment = make_augment(params.augment, sample, dropout_rng)
    augment = with_channels_last(augment) if choices.channels_last else augment
    context = StepContext(
        wrapped_model=_wrap_model(model, data, params, world, result, dropout_rng, choices),
        loss_fn=loss_fn,
        objective=make_objective(params.objective),
        optimizer=optimizer,
        dropout_rng=dropout_rng,
        world=world,
        clip_norm=math.inf if params.clip_norm is None else params.clip_norm,
        trainable_params=trainable_params,
        autocast=casting(choices.precision, device),
        scaler=scaler,
        augment=augment,
        clip_value=params.clip_value,
        frozen_norms=frozen_norms,
        grad_norm_fn=total_norm if choices.sharded else nn.utils.get_total_norm,
        equal_forwards=choices.sharded,
        buffers=find_buffers(model),
    )
    if world.size > 2 and isinstance(context.wrapped_model, DistributedDataParallel):
        build_ddp_buckets(context, *data.train.take(slice(0, 2)))
    # For what a model of one's own draws: dropout of the zoo follows from seed, epoch and step.
    # Last, so that nothing that is drawn above shows.
    seed_generators(seed, world.rank)
    state = State(model, optimizer, schedule, average, result, scaler=scaler)
    return Assembly(context, _choose_step(context, device), state, loss_fn, rates)


def _choose_step(context: StepContext, device: torch.device) -> StepFn:
    if needs_closure(type(context.optimizer)):
        return partial(closure_step, context)
    return partial(train_step if device.type == "cpu" else train_step_on_device, context)


def _make_loss(model: nn.Module, data: Data, params: TrainParams) -> nn.Module:
    class_weights, device, row_weights = None, data.train.target.device, data.train.weight
    if params.class_weights is not None:
        class_weights = weigh_classes(
            params.class_weights, data.classes, data.train.target, row_weights
        )
        # Of the type of the losses: a cast in each step would be one more operation.
        class_weights = class_weights.to(device, next(model.parameters()).dtype)
    num_classes = len(data.classes) or NUM_CLASSES
    by_row = row_weights is not None
    return make_loss(params, data.task, class_weights, num_classes, by_row=by_row).to(device)


def _wrap_model(
    model: nn.Module,
    data: Data,
    params: TrainParams,
    world: World,
    result: Result,
    dropout_rng: DropoutRng,
    choices: Choices,
) -> nn.Module:
    """The model itself, or what compiles it and what keeps it equal in all processes."""
    if choices.compiled:
        num_rows = min(params.batch_size, len(data.train))
        local_rows, _ = shard(num_rows, world)
        max_local_rows = len(range(num_rows)[local_rows])

        def usual_size() -> int:
            return min(max_local_rows, result.micro_batch_size or max_local_rows)

        model = compile_model(model, dropout_rng, usual_size, deterministic=params.deterministic)
    if world.size == 1 or choices.sharded:
        return model
    # The gradients lie where they are added up: no copy of them. A static graph brings nothing
    # here, and fails where micro-batches begin without adding up.
    return DistributedDataParallel(model, gradient_as_bucket_view=True)
