"""The start of a training on this machine: load, choose, and tell the user what was chosen."""

from collections.abc import Iterator

from torch import nn

from stages.features.schema import read_statistics
from stages.train.recipe import Training
from stages.train.replicas import num_sharing
from stages.training.choices import Choices, make_choices
from stages.training.data.source import TensorSource
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import choose_threads
from stages.training.far_values import describe_far, find_far
from stages.training.optim.class_weights import describe_weights, weigh_classes
from stages.training.optim.param_groups import describe_groups
from stages.training.recipe import PREPARED, describe_pretrained, load_data, load_weights
from stages.training.state import Data


def prepare_training(
    training: Training, number: int, world: World, num_trainings: int
) -> tuple[nn.Module, Data, Choices]:
    """Load the model, in the host's memory, and the data; tell them and what has been chosen.

    `num_trainings`: those that may run side by side, this one included. `number` is its own.
    """
    recipe, seed = training.recipe, training.seed
    section, spec = recipe.train, recipe.model
    statistics = read_statistics(PREPARED)
    device = choose_device()
    model = load_weights(spec, seed, number)
    num_weights = sum(weight.numel() for weight in model.parameters())
    threads = choose_threads(num_weights, section.batch_size, world)
    sharing = num_sharing(spec, num_trainings, section.batch_size, world)
    data, place = load_data(
        recipe.schema, statistics, device, sharing, section.dataset, training.fold
    )
    sample, _ = data.train.take(slice(0, 1))
    choices = make_choices(model, data, sample, section, world)
    processes = f"{world.size} process" + ("es" if world.size > 1 else "")
    processes += f" on {world.num_nodes} machines" if world.num_nodes > 1 else ""
    print(f"{spec.name}: {num_weights:,} weights on {device}; {processes}")
    print(place, threads, *choices.notes, sep="; ")
    for line in _lines_of(training, model, data):
        print(line)
    # Where a row is not made anew, or read from disk, each time that it is looked at.
    if isinstance(data.validation, TensorSource) and (far := find_far(data.validation, data)):
        print(f"note: {describe_far(far, 'validation', data.validation)}")
    return model, data, choices


def _lines_of(training: Training, model: nn.Module, data: Data) -> Iterator[str]:
    """Yield what tune, pretrained weights, groups and class weights come to, if there are any."""
    section = training.recipe.train
    for path, value in training.recipe.overrides.items():
        yield f"{training.recipe.origin}: {path} = {value}"
    yield from describe_pretrained(model)
    if section.groups is not None:
        yield from describe_groups(model, section.groups)
    if section.class_weights is not None:
        rows = data.classes, data.train.target, data.train.weight
        weights = weigh_classes(section.class_weights, *rows)
        yield from describe_weights(weights, *rows)
