"""Looks at a training beside the pipeline: for `lr_range`, `profile` and `diagnose`.

They turn the loop of the stage itself, on the same recipe, model and rows, and end it from its
hooks. Nothing of it is kept: no output, no checkpoint.
"""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import nn

from stages.common.errors import UserError, format_problem
from stages.common.params import Params, read_params
from stages.common.terminal import keep_printing
from stages.common.user_code import own_errors
from stages.common.yamlfile import with_location
from stages.features.schema import read_statistics
from stages.model.model import make_model
from stages.runtime.environment import check_versions
from stages.train.recipe import BEST, read_recipe
from stages.training.data.source import TensorSource
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import choose_threads, compute_deterministically
from stages.training.loop import train
from stages.training.optim.preflight import check_names
from stages.training.params import TrainParams
from stages.training.recipe import BUILT, PREPARED, load_data, load_weights
from stages.training.state import Data, State


class EnoughError(Exception):
    """Ends the training: everything that was asked for is there."""


@dataclass(frozen=True)
class Training:
    """A training that has not begun, in one process."""

    model: nn.Module
    data: Data
    params: TrainParams
    seed: int

    def take_steps(
        self, num_steps: int, begin: Callable[[State], None], after_step: Callable[[State], None]
    ) -> None:
        """Train for `num_steps` steps, over as many epochs as they take.

        `begin` gets the state before the first of them, `after_step` that after each; it may raise
        `EnoughError`.
        """
        num_taken = 0

        def look(state: State) -> None:
            nonlocal num_taken
            # The loop calls once more after an epoch.
            if state.totals.num_steps == 0:
                return
            num_taken += 1
            after_step(state)
            if num_taken == num_steps:
                raise EnoughError

        steps_per_epoch = math.ceil(len(self.data.train) / self.params.batch_size)
        num_epochs = math.ceil(num_steps / steps_per_epoch)
        params = self.params.model_copy(update={"epochs": num_epochs, "early_stopping": None})
        try:
            train(self.model, self.data, params, self.seed, World(), lambda *_: None, begin, look)
        except EnoughError:
            return


def run_tool(name: str, work: Callable[[Params], None]) -> None:
    """Run `work`; a user's mistake is one screen of text and exit code 1, as in a stage."""
    keep_printing()
    try:
        check_versions("train")
        with own_errors(""):
            work(read_params("train"))
    except UserError as error:
        _fail(name, error)
    except OSError as error:
        _fail(name, UserError(f"{error.strerror or error} {error.filename or ''}".strip()))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(name: str, error: UserError) -> NoReturn:
    print(f"\n{name} stopped", file=sys.stderr)
    for problem in error.problems:
        print(format_problem(with_location(problem)), file=sys.stderr)
    sys.exit(1)


def prepare(params: Params, device: torch.device | None = None) -> Training:
    """The training of the recipe, with tune's best trial on top where there is one.

    Of an ensemble it is that of the first member. It is on `device`, by default that of a training.
    Of the validation rows it has one: they are nothing to these looks. Raises UserError.
    """
    for needed in (PREPARED / "schema.json", BUILT / "model.json"):
        if not needed.exists():
            raise UserError(f"there is no {needed}: run 'dvc repro build' first")
    best = BEST if BEST.exists() else None
    if best is None:
        print(f"there is no {BEST}: the values of params.yaml as they are")
    recipe = read_recipe(params, best).training(0).recipe
    section, spec, schema = recipe.train, recipe.model, recipe.schema
    target = schema.target
    by_row = schema.weight is not None
    check_names(section, target.task, target.classes, lambda: make_model(spec, 0), by_row=by_row)
    compute_deterministically(deterministic=section.deterministic)
    device = choose_device() if device is None else device
    model = load_weights(spec, params.seed)
    num_weights = sum(weight.numel() for weight in model.parameters())
    threads = choose_threads(num_weights, section.batch_size, World())
    statistics = read_statistics(PREPARED)
    data, place = load_data(schema, statistics, device, dataset=section.dataset)
    print(f"{spec.name}: {num_weights:,} weights on {device}; {threads}; {place}")
    for path, value in recipe.overrides.items():
        print(f"{recipe.origin}: {path} = {value}")
    one = TensorSource(*data.validation.take(slice(0, 1)))
    return Training(model.to(device), replace(data, validation=one), section, params.seed)


def at_least(lowest: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from `lowest`."""

    def read(text: str) -> int:
        if not text.isdigit() or int(text) < lowest:
            message = f"'{text}' must be a whole number, {lowest} or more"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return read
