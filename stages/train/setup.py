"""What a training starts from on this machine, and the lines that tell what rules have chosen."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from stages.common.config import Overrides
from stages.features.schema import Schema, read_statistics
from stages.model.model import ModelSpec
from stages.train.replicas import num_sharing
from stages.training.build import sizes
from stages.training.data.source import Split
from stages.training.device.compile import choose_compile
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import choose_threads
from stages.training.device.fsdp import divides_weights
from stages.training.device.memory_format import choose_layout
from stages.training.device.precision import choose_precision
from stages.training.far_values import find_far, tell_far
from stages.training.optim.class_weights import tell_weights, weigh_classes
from stages.training.optim.param_groups import tell_groups
from stages.training.params import TrainParams
from stages.training.recipe import PREPARED, load_data, load_weights
from stages.training.state import Data
from stages.training.step.cuda_graph import choose_graphs


@dataclass(frozen=True)
class Chosen:
    """What the rules have made of `auto` in the recipe, and whether processes divide the weights.

    A parameter overrides what changes the result, else the environment.
    """

    precision: str
    compiles: bool
    channels_last: bool
    divided: bool


def start(
    section: TrainParams,
    spec: ModelSpec,
    schema: Schema,
    overrides: Overrides,
    seed: int,
    replica: int,
    world: World,
) -> tuple[nn.Module, Data, Chosen]:
    """Load the model, in the host's memory, and the data; tell them and what has been chosen."""
    statistics = read_statistics(PREPARED)
    device = choose_device()
    model = load_weights(spec, seed, replica)
    num_weights = sum(weight.numel() for weight in model.parameters())
    threads = choose_threads(num_weights, section.batch_size, world)
    sharing = num_sharing(spec, section.replicas, section.batch_size, world)
    data, place = load_data(schema, statistics, device, sharing, section.dataset)
    chosen, why, layout, graphs = _choose(model, data, section, device, world)
    processes = f"{world.size} process" + ("es" if world.size > 1 else "")
    processes += f" on {world.num_nodes} machines" if world.num_nodes > 1 else ""
    print(f"{spec.name}: {num_weights:,} weights on {device}; {processes}")
    print(*filter(None, (place, threads, why, chosen.precision, layout, graphs)), sep="; ")
    for line in _lines_of(section, overrides, model, data):
        print(line)
    # Where a row is not made anew, or read from disk, each time that it is looked at.
    if isinstance(data.validation, Split) and (far := find_far(data.validation, data)):
        print(f"note: {tell_far(far, 'validation', data.validation)}")
    return model, data, chosen


def _choose(
    model: nn.Module, data: Data, section: TrainParams, device: torch.device, world: World
) -> tuple[Chosen, str, str, str]:
    """What is chosen; whether to compile, how images lie and whether steps are played in words."""
    precision = choose_precision(section.precision, device)
    sample, _ = data.train.take(slice(0, 1))
    last, layout = choose_layout(section.channels_last, precision, device, sample)
    divided, counts = divides_weights(section, world), sizes(model, data, section)
    compiles, why = choose_compile(section.compile, device, *counts, divided=divided)
    _, graphs = choose_graphs(
        section, device, counts[0], world, precision=precision, compiled=compiles
    )
    return Chosen(precision, compiles, last, divided), why, layout, graphs


def _lines_of(
    section: TrainParams, overrides: Overrides, model: nn.Module, data: Data
) -> Iterator[str]:
    """What tune, groups of weights and weights of classes come to, if there are any."""
    for path, value in overrides.items():
        yield f"from tune: {path} = {value}"
    if section.groups is not None:
        yield from tell_groups(model, section.groups)
    if section.class_weights is not None:
        weights = weigh_classes(section.class_weights, data.classes, data.train.target)
        yield from tell_weights(weights, data.classes, data.train.target)
