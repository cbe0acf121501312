"""Everything about a training that a rule decides in place of the recipe: once, and handed on."""

import math
from dataclasses import dataclass

from torch import nn

from stages.tensors.batch import Batch
from stages.training.device.compile import choose_compile
from stages.training.device.distributed import World
from stages.training.device.fsdp import shards_weights
from stages.training.device.memory_format import choose_memory_format
from stages.training.device.precision import choose_precision
from stages.training.params import TrainParams
from stages.training.state import Data


@dataclass(frozen=True)
class Choices:
    """The decisions for every `auto` of the recipe, and whether processes divide the weights.

    `notes` has the decisions in words, for the user. A parameter overrides what changes the result,
    the environment what belongs to the machine.
    """

    precision: str
    compiled: bool
    channels_last: bool
    sharded: bool
    notes: tuple[str, ...]


def make_choices(
    model: nn.Module, data: Data, sample: Batch, params: TrainParams, world: World
) -> Choices:
    """Decide by sizes, device and parameters; `sample` is any batch.

    Raises UserError for what does not go together.
    """
    device = data.train.target.device
    precision = choose_precision(params.precision, device)
    channels_last, format_note = choose_memory_format(
        params.channels_last, precision, device, sample
    )
    sharded = shards_weights(params, world)
    num_products, num_steps = sizes(model, data, params)
    compiled, compile_note = choose_compile(
        params.compile, device, num_products, num_steps, sharded=sharded
    )
    notes = tuple(filter(None, (compile_note, precision, format_note)))
    return Choices(precision, compiled, channels_last, sharded, notes)


def sizes(model: nn.Module, data: Data, params: TrainParams) -> tuple[int, int]:
    """The products of a weight and a row in a step, and the steps of the training."""
    num_weights = sum(weight.numel() for weight in model.parameters())
    num_steps = params.epochs * math.ceil(len(data.train) / params.batch_size)
    return num_weights * min(params.batch_size, len(data.train)), num_steps
