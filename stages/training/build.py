"""From a recipe to what the loop turns: the step, and the state that it moves."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from stages.model.dropout import Masks, share_masks
from stages.training.averaging import held_rates
from stages.training.data.batching import Share, shard
from stages.training.device.compile import Compiled, choose_compile, compile_model
from stages.training.device.distributed import World
from stages.training.device.fsdp import (
    divides_weights,
    keep_parts,
    shard_model,
    share_scaler,
    total_norm,
)
from stages.training.device.memory_format import (
    choose_layout,
    put_channels_last,
    with_channels_last,
)
from stages.training.device.precision import casting, choose_precision, make_scaler
from stages.training.device.rng import seed_generators
from stages.training.optim.class_weights import weigh_classes
from stages.training.optim.loss import make_loss
from stages.training.optim.monitored_metric import watched_direction
from stages.training.optim.optimizer import make_optimizer, needs_closure
from stages.training.optim.param_groups import freeze
from stages.training.optim.registry import resolve
from stages.training.optim.schedule import make_schedule
from stages.training.params import NUM_CLASSES, TrainParams
from stages.training.state import Data, Result, State
from stages.training.step.augmentation import make_augment
from stages.training.step.buffer_snapshot import find_buffers
from stages.training.step.closure_step import take_with_closure
from stages.training.step.cuda_graph import GraphedStep, choose_graphs
from stages.training.step.one_row import check_one_row
from stages.training.step.step import Step, settle_sums


@dataclass(frozen=True)
class Assembly:
    """One training, put together and not begun.

    `take` takes a step: `step.take`, or what an optimizer or a device needs in its place.
    `held_rates` are those of the optimizer's groups while `train.swa` holds the schedule.
    """

    step: Step
    take: Callable[[Share, State], None]
    state: State
    loss_of: nn.Module
    held_rates: list[float]


def assemble(
    model: nn.Module, data: Data, params: TrainParams, seed: int, world: World
) -> Assembly:
    """Loss, optimizer, schedule and averages around `model`, which is trained in place.

    Raises UserError for names that don't fit.
    """
    loss_of = _make_loss(model, data, params)
    # Before anything else looks at the weights: which of them move.
    still = [] if params.groups is None else freeze(model, params.groups)
    check_one_row(model, still, data.train, params, world)
    device = data.train.target.device
    precision = choose_precision(params.precision, device)
    sample, _ = data.train.take(slice(0, 1))
    last, _ = choose_layout(params.channels_last, precision, device, sample)
    divided = divides_weights(params, world)
    # Divided weights, and those that LBFGS lines up, are in one order alone; images may still be.
    if last and not divided and not needs_closure(resolve("optimizer", params.optimizer)[0]):
        put_channels_last(model)
    average = None
    if params.ema is not None or params.swa is not None:
        average = copy.deepcopy(model).requires_grad_(requires_grad=False)
    if divided:
        for each in (model,) if average is None else (model, average):
            shard_model(each, device, world)
    optimizer = make_optimizer(model, params)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if divided:
        weights = keep_parts(weights, optimizer)
    held = held_rates(optimizer, params)
    steps_per_epoch = math.ceil(len(data.train) / params.batch_size)
    direction = watched_direction(params, data.task)
    schedule = make_schedule(optimizer, params, steps_per_epoch, direction)
    masks = share_masks(model, device)
    result = Result(micro_batch_size=params.micro_batch_size)
    network = make_network(model, data, params, world, result, masks)
    scaler = make_scaler(precision, device)
    if divided and scaler is not None:
        scaler = share_scaler(scaler, device)
    cast = casting(precision, device)
    augment = make_augment(params.augment, sample, masks)
    augment = with_channels_last(augment) if last else augment
    step = Step(
        network=network,
        loss_of=loss_of,
        optimizer=optimizer,
        masks=masks,
        world=world,
        clip_norm=math.inf if params.clip_norm is None else params.clip_norm,
        weights=weights,
        cast=cast,
        scaler=scaler,
        augment=augment,
        clip_value=params.clip_value,
        still=still,
        norm_of=total_norm if divided else nn.utils.get_total_norm,
        in_step=divided,
        unseen=device.type != "cpu",
        buffers=find_buffers(model),
    )
    if world.size > 2 and isinstance(network, DistributedDataParallel):
        settle_sums(step, *data.train.take(slice(0, 2)))
    # For what a model of one's own draws: dropout of the zoo follows from seed, epoch and step.
    # Last, so that nothing that is drawn above shows.
    seed_generators(seed, world.rank)
    state = State(model, optimizer, schedule, average, result, scaler=scaler)
    return Assembly(step, _choose_take(step, data, params, precision), state, loss_of, held)


def _choose_take(
    step: Step, data: Data, params: TrainParams, precision: str
) -> Callable[[Share, State], None]:
    if needs_closure(type(step.optimizer)):
        return partial(take_with_closure, step)
    device, counts = data.train.target.device, sizes(step.network, data, params)
    compiled = isinstance(step.network, Compiled)
    played, _ = choose_graphs(
        params, device, counts[0], step.world, precision=precision, compiled=compiled
    )
    num_rows = min(params.batch_size, len(data.train))
    return GraphedStep(step, num_rows).take if played else step.take


def _make_loss(model: nn.Module, data: Data, params: TrainParams) -> nn.Module:
    weights, device = None, data.train.target.device
    if params.class_weights is not None:
        weights = weigh_classes(params.class_weights, data.classes, data.train.target)
        # Of the type of the losses: a cast in each step would be one more operation.
        weights = weights.to(device, next(model.parameters()).dtype)
    num_classes = len(data.classes) or NUM_CLASSES
    return make_loss(params, data.task, weights, num_classes).to(device)


def make_network(
    model: nn.Module, data: Data, params: TrainParams, world: World, result: Result, masks: Masks
) -> nn.Module:
    """What a step puts its rows through: the model itself, or what compiles and what shares it."""
    num_rows = min(params.batch_size, len(data.train))
    divided = divides_weights(params, world)
    device, counts = data.train.target.device, sizes(model, data, params)
    compiles, _ = choose_compile(params.compile, device, *counts, divided=divided)
    if compiles:
        mine, _ = shard(num_rows, world)
        share = len(range(num_rows)[mine])

        def usual() -> int:
            return min(share, result.micro_batch_size or share)

        model = compile_model(model, masks, usual, deterministic=params.deterministic)
    if world.size == 1 or divided:
        return model
    # The gradients lie where they are added up: no copy of them. A static graph brings nothing
    # here, and fails where micro-batches begin without adding up.
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def sizes(model: nn.Module, data: Data, params: TrainParams) -> tuple[int, int]:
    """The products of a weight and a row in a step, and the steps of the training."""
    num_weights = sum(weight.numel() for weight in model.parameters())
    num_steps = params.epochs * math.ceil(len(data.train) / params.batch_size)
    return num_weights * min(params.batch_size, len(data.train)), num_steps
