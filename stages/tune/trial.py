"""One trial: the training loop itself, on the recipe with the trial's overrides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from stages.common.config import Overrides, get_path
from stages.common.params import Params
from stages.features.schema import Schema, read_schema, read_statistics
from stages.model.model import ModelSpec, read_spec
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import choose_threads, compute_deterministically
from stages.training.loop import monitored_value, train
from stages.training.optim.monitored_metric import monitored_direction
from stages.training.recipe import (
    BUILT,
    PREPARED,
    load_data,
    load_weights,
    override_model,
    override_train,
)
from stages.training.state import Epoch
from stages.training.step.divergence import DivergedError
from stages.tune.params import TuneParams
from stages.tune.study import DivergedTrial, Objective


@dataclass(frozen=True)
class Start:
    """The start of all trials. `train` is the section `train`, its epochs those of a trial."""

    train: Mapping[str, Any]
    spec: ModelSpec
    schema: Schema
    seed: int


def read_start(params: Params, num_epochs: int) -> Start:
    """The recipe of `params.yaml` and `model.json`; a trial has a budget of its own."""
    # A trial is judged by what its training watches; nothing is fitted after it. It is one process.
    uncalibrated = {"temperature": False, "threshold": None}
    # Nor are its few epochs those that are averaged.
    own = {"epochs": num_epochs, "swa": None, "calibration": uncalibrated}
    one = {"replicas": 1, "folds": None, "parallel": "ddp"}
    train_tree = {**params.part("train"), **own, **one}
    return Start(train_tree, read_spec(BUILT), read_schema(PREPARED), params.seed)


def current_values(start: Start, params: TuneParams) -> Overrides:
    """The values that the paths of the space have without a search; unset arguments have none."""
    tree = {
        "train": start.train,
        "build": {"model": {"name": start.spec.name, **start.spec.arguments}},
    }
    current: Overrides = {}
    for path in params.space:
        try:
            current[path] = get_path(tree, path)
        except KeyError:
            continue
    return current


def make_objective(start: Start) -> tuple[Objective, str]:
    """A function that trains with overrides and returns the best epoch's watched metric.

    Beside it, 'minimize' or 'maximize'.
    """
    device = choose_device()
    recipe = override_train(start.train, {})
    load = partial(load_data, start.schema, read_statistics(PREPARED), device)
    common, _ = load(dataset=recipe.dataset)
    compute_deterministically(deterministic=recipe.deterministic)
    direction = f"{monitored_direction(recipe, start.schema.target.task)}imize"

    def objective(overrides: Overrides, report: Callable[[int, float], None]) -> float:
        recipe = override_train(start.train, overrides)
        # A dataset's arguments may be among what is tried; the arrays are the same for all.
        data = common if recipe.dataset is None else load(dataset=recipe.dataset)[0]
        spec = override_model(start.spec, overrides, start.schema)
        model = load_weights(spec, start.seed).to(device)
        num_weights = sum(weight.numel() for weight in model.parameters())
        choose_threads(num_weights, recipe.batch_size, World())

        def watch(epoch: Epoch, _: nn.Module) -> None:
            report(epoch.epoch, monitored_value(epoch, recipe))

        try:
            result = train(model, data, recipe, start.seed, World(), watch)
        except DivergedError:
            # A learning rate that is too high says something too: the search continues without it.
            raise DivergedTrial from None
        assert result.best_epoch is not None
        return monitored_value(result.best_epoch, recipe)

    return objective, direction
