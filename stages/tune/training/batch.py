"""The trainings of a batch of trials, on the recipe with each one's overrides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from stages.common.config import Overrides
from stages.common.params import Params
from stages.features.schema import Schema, read_schema, read_statistics
from stages.model.model import ModelSpec, read_spec
from stages.training.device.device import choose_device
from stages.training.device.environment import compute_deterministically
from stages.training.optim.monitored_metric import monitored_direction
from stages.training.packed.pack import Member
from stages.training.recipe import (
    BUILT,
    PREPARED,
    load_data,
    load_weights,
    override_model,
    override_train,
)
from stages.training.state import Data
from stages.tune.training.groups import (
    Gathered,
    Group,
    Part,
    divide,
    run_in_step,
    train_alone,
    train_together,
)
from stages.tune.training.side_by_side import num_at_once, train_side_by_side
from stages.tune.trials import OnEpochEnd, TrainTrials, TrialResult


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
    one = {"replicas": 1, "folds": None, "ensemble": None, "parallel": "ddp"}
    train_tree = {**params.part("train"), **own, **one}
    return Start(train_tree, read_spec(BUILT), read_schema(PREPARED), params.seed)


def current_values(start: Start) -> Overrides:
    """The values of all keys without a search, by their paths; unset arguments have none."""
    model = {"name": start.spec.name, **start.spec.arguments}
    return {**_by_path(model, "build.model"), **_by_path(start.train, "train")}


def _by_path(tree: Mapping[str, Any], at: str) -> Overrides:
    found: Overrides = {}
    for name, value in tree.items():
        found[f"{at}.{name}"] = value
        if isinstance(value, Mapping):
            found |= _by_path(value, f"{at}.{name}")
    return found


@dataclass(frozen=True)
class Trainer:
    """The means to train trials: their common data, and what makes a member of overrides.

    `direction` is that of the watched metric: 'minimize' or 'maximize'.
    """

    direction: str
    data: Data
    prepare: Callable[[Overrides], Member]
    keep_scores: bool


def make_trainer(start: Start, *, keep_scores: bool) -> Trainer:
    """A trainer of trials that begin at `start`, on this process's device."""
    device = choose_device()
    recipe = override_train(start.train, {})
    load = partial(load_data, start.schema, read_statistics(PREPARED), device)
    common, _ = load(dataset=recipe.dataset)
    compute_deterministically(deterministic=recipe.deterministic)
    direction = f"{monitored_direction(recipe, start.schema.target.task)}imize"

    def prepare(overrides: Overrides) -> Member:
        recipe = override_train(start.train, overrides)
        # A dataset's arguments may be among what is tried; the arrays are the same for all.
        data = common if recipe.dataset is None else load(dataset=recipe.dataset)[0]
        spec = override_model(start.spec, overrides, start.schema)
        return Member(load_weights(spec, start.seed).to(device), data, recipe, start.seed)

    return Trainer(direction, common, prepare, keep_scores)


def make_train_trials(
    start: Start, *, in_step: bool, keep_scores: bool
) -> tuple[TrainTrials, str, Data]:
    """A function that trains a batch of trials, the metric's direction, and the data.

    Trials that can are trained as a pack, where the rule has it so. With `in_step` all are in
    memory at once, and take turns by the epoch; else each group is trained to its end before the
    next one. The direction is 'minimize' or 'maximize'.
    """
    trainer = make_trainer(start, keep_scores=keep_scores)
    told: set[str] = set()

    def train_trials(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        parts = divide_batch(trainer, tried, told)
        at_once = num_at_once(parts)
        if at_once > 1:
            say_once(f"{at_once} at once, each in a process", told)
        results = train_parts(trainer, parts, tried, on_epoch_end, at_once, in_step=in_step)
        return [results[place] for place in range(len(tried))]

    return train_trials, trainer.direction, trainer.data


def divide_batch(trainer: Trainer, tried: Sequence[Overrides], told: set[str]) -> list[Part]:
    """The trials that train together, by their places, each with its pack if they are one.

    How they are divided is said once; `told` has the lines that were.
    """
    parts, lines = divide([trainer.prepare(overrides) for overrides in tried])
    for line in lines:
        say_once(line, told)
    return parts


def say_once(line: str, told: set[str]) -> None:
    """Print a line unless it was; `told` has those that were."""
    if line not in told:
        print(line, flush=True)
    told.add(line)


def train_parts(
    trainer: Trainer,
    parts: Sequence[Part],
    tried: Sequence[Overrides],
    on_epoch_end: OnEpochEnd,
    at_once: int = 1,
    *,
    in_step: bool = False,
) -> dict[int, TrialResult]:
    """Train some parts of a batch, `at_once` side by side; the results are by place."""

    def begin(part: Part, gathered: Gathered) -> Group:
        if part.pack is not None:
            return train_together(part.places, part.pack, gathered)
        place = part.places[0]
        # Anew: a pack that could not be had has begun to use the model.
        return train_alone(place, trainer.prepare(tried[place]), gathered)

    def train(numbers: Sequence[int], on_epoch_end: OnEpochEnd) -> dict[int, TrialResult]:
        gathered = Gathered({}, trainer.keep_scores)
        run_in_step([begin(parts[number], gathered) for number in numbers], on_epoch_end)
        return gathered.results

    if at_once > 1:
        names = [_name(part, tried) for part in parts]
        return train_side_by_side(parts, names, train, on_epoch_end, at_once, in_step=in_step)
    numbers, results = range(len(parts)), dict[int, TrialResult]()
    for together in [numbers] if in_step else [[number] for number in numbers]:
        results |= train(together, on_epoch_end)
    return results


def _name(part: Part, tried: Sequence[Overrides]) -> str:
    """The trials of a part in words, by what the first of them sets."""
    first = ", ".join(f"{path} {value}" for path, value in tried[part.places[0]].items())
    others = len(part.places) - 1
    return f"the trial with {first or 'the values of params.yaml'}" + (
        f" and {others} packed with it" if others else ""
    )
