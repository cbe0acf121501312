"""The trainings of a batch of trials: the loop itself, on the recipe with each one's overrides."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from stages.common.config import Overrides
from stages.common.params import Params
from stages.features.schema import Array, Schema, read_schema, read_statistics
from stages.model.model import ModelSpec, read_spec
from stages.training.build import Assembly, assemble
from stages.training.data.source import Source, rows_at_once
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import compute_deterministically, num_threads
from stages.training.device.rng import put_generators, read_generators
from stages.training.loop import monitored_value, run_epochs
from stages.training.optim.monitored_metric import monitored_direction
from stages.training.params import TrainParams
from stages.training.recipe import (
    BUILT,
    PREPARED,
    load_data,
    load_weights,
    override_model,
    override_train,
)
from stages.training.state import Data, Epoch
from stages.training.step.divergence import DivergedError
from stages.training.step.loss_of_scores import prepare_scores
from stages.tune.trials import OnEpochEnd, TrainTrials, TrialResult


@dataclass(frozen=True)
class Start:
    """The start of all trials. `train` is the section `train`, its epochs those of a trial."""

    train: Mapping[str, Any]
    spec: ModelSpec
    schema: Schema
    seed: int


@dataclass
class _Training:
    """A training that has begun, and where it left the global generators."""

    recipe: TrainParams
    data: Data
    assembly: Assembly
    epochs: Iterator[tuple[Epoch, nn.Module]]
    num_threads: int
    generators: dict[str, Any]


def read_start(params: Params, num_epochs: int) -> Start:
    """The recipe of `params.yaml` and `model.json`; a trial has a budget of its own."""
    # A trial is judged by what its training watches; nothing is fitted after it. It is one process.
    uncalibrated = {"temperature": False, "threshold": None}
    # Nor are its few epochs those that are averaged.
    own = {"epochs": num_epochs, "swa": None, "calibration": uncalibrated}
    one = {"replicas": 1, "folds": None, "parallel": "ddp"}
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


def make_train_trials(
    start: Start, *, in_step: bool, keep_scores: bool
) -> tuple[TrainTrials, str, Data]:
    """A function that trains a batch of trials in turns, the metric's direction, and the data.

    With `in_step` all are in memory at once, and take turns by the epoch; else each is trained to
    its end before the next one. The direction is 'minimize' or 'maximize'.
    """
    device = choose_device()
    recipe = override_train(start.train, {})
    load = partial(load_data, start.schema, read_statistics(PREPARED), device)
    common, _ = load(dataset=recipe.dataset)
    compute_deterministically(deterministic=recipe.deterministic)
    direction = f"{monitored_direction(recipe, start.schema.target.task)}imize"

    def begin(overrides: Overrides) -> _Training:
        recipe = override_train(start.train, overrides)
        # A dataset's arguments may be among what is tried; the arrays are the same for all.
        data = common if recipe.dataset is None else load(dataset=recipe.dataset)[0]
        spec = override_model(start.spec, overrides, start.schema)
        model = load_weights(spec, start.seed).to(device)
        num_weights = sum(weight.numel() for weight in model.parameters())
        threads, _ = num_threads(num_weights, recipe.batch_size, World())
        torch.set_num_threads(threads)
        assembly = assemble(model, data, recipe, start.seed, World())
        epochs = run_epochs(assembly, data, recipe, start.seed)
        return _Training(recipe, data, assembly, epochs, threads, read_generators(device))

    def train_trials(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        results: dict[int, TrialResult] = {}
        places = list(range(len(tried)))
        for group in [places] if in_step else [[place] for place in places]:
            left = {place: begin(tried[place]) for place in group}
            while left:
                values: dict[int, float] = {}
                for place, training in list(left.items()):
                    value = _train_epoch(training, device)
                    if isinstance(value, float):
                        values[place] = value
                    else:
                        results[place] = value or _result(training, keep_scores=keep_scores)
                        del left[place]
                epoch = max(
                    (len(t.assembly.state.result.history) for t in left.values()), default=0
                )
                for place in on_epoch_end(epoch, values) if values else ():
                    results[place] = TrialResult("pruned", None)
                    del left[place]
        return [results[place] for place in places]

    return train_trials, direction, common


def _train_epoch(training: _Training, device: torch.device) -> float | TrialResult | None:
    """The watched metric after the next epoch; None: it has ended; or how it could not go on."""
    torch.set_num_threads(training.num_threads)
    # What a model of one's own draws goes on where this training has left it.
    put_generators(training.generators, device)
    try:
        epoch, _ = next(training.epochs)
    except StopIteration:
        return None
    except DivergedError:
        # A learning rate that is too high says something too: the search continues without it.
        return TrialResult("diverged", None)
    training.generators = read_generators(device)
    return monitored_value(epoch, training.recipe)


def _result(training: _Training, *, keep_scores: bool) -> TrialResult:
    result = training.assembly.state.result
    assert result.best_epoch is not None
    scores = None
    if keep_scores:
        model = training.assembly.state.model
        model.load_state_dict(result.weights)
        scores = score(model, training.data.validation)
    return TrialResult("complete", monitored_value(result.best_epoch, training.recipe), scores)


@torch.inference_mode()
def score(model: nn.Module, split: Source) -> Array:
    """Logarithms of probabilities (rows, classes) float16, or standardised values (rows,) float32.

    `model` is in evaluation mode from then on.
    """
    model.eval()
    size, parts = rows_at_once(split), []
    for first in range(0, len(split), size):
        batch, target = split.take(slice(first, first + size))
        parts.append(prepare_scores(model(batch), target).cpu())
    scores = torch.cat(parts)
    if scores.ndim == 1:
        return scores.numpy()
    return scores.log_softmax(dim=1).numpy().astype(np.float16)
