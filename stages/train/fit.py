"""A training from files to files: load, train, write. Every process of a training runs it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from stages.features.schema import Array
from stages.model.model import make_model
from stages.train.calibrate import calibrate_scores, score
from stages.train.checkpoints.checkpoint import history_of, load_checkpoint, load_state_dict, newest
from stages.train.checkpoints.checkpointer import Checkpointer
from stages.train.checkpoints.sharded_checkpoint import load_part
from stages.train.checkpoints.signals import stop_signals
from stages.train.kind import write_kind
from stages.train.logs.monitor import open_monitor
from stages.train.logs.tensorboard import due_weights
from stages.train.recipe import Recipe, Training
from stages.train.results import VALIDATION, write_arrays, write_recipe, write_results
from stages.train.setup import prepare_training
from stages.training.choices import Choices
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import compute_deterministically
from stages.training.device.out_of_memory import read_oom_hints
from stages.training.loop import train
from stages.training.state import Data, Epoch, Result, State


def fit(
    recipe: Recipe,
    out: Path,
    world: World,
    checkpoints: Path | None,
    number: int = 0,
    *,
    in_stage: bool = False,
) -> None:
    """Train one of the recipe's trainings; write model, history, metrics and plots into `out`.

    One process of each machine writes.

    It resumes from the folder `checkpoints`, and keeps its own there. A training other than
    `number` 0 has a seed and first weights of its own: the folds of replica 0 come first, then
    those of replica 1. `in_stage`: the stage itself trains it, not one of several processes.
    """
    training = recipe.training(number)
    section, spec, seed = training.recipe.train, training.recipe.model, training.seed
    compute_deterministically(deterministic=section.deterministic)
    num_trainings = 1 if in_stage else recipe.trainings.count
    model, data, choices = prepare_training(training, number, world, num_trainings)
    if not choices.sharded:
        model.to(choose_device())
    saved = _load_saved(checkpoints, world, sharded=choices.sharded)

    def load_state(state: State) -> None:
        load_state_dict(saved, world, state)
        size = state.result.micro_batch_size
        state.result.micro_batch_size = read_oom_hints(checkpoints, size, world)

    with stop_signals() as stop_signal:
        checkpointer = Checkpointer(checkpoints, world, stop_signal)
        run_training = partial(
            train, model, data, section, seed, world, load_state=load_state, choices=choices
        )
        if not world.is_local_main_process:
            _train_without_logs(run_training, checkpointer, section.epochs)
            return
        history = history_of(saved)
        with open_monitor(spec, section, seed, data, history, checkpoints, world) as monitor:
            monitor.tensorboard.write_start(model, data)
            for epoch in history:
                monitor(epoch, None)
            on_step_end = call_in_order(monitor.progress.after_step, checkpointer)
            try:
                result = run_training(on_epoch_end=monitor, on_step_end=on_step_end)
            finally:
                monitor.progress.close()
                checkpointer.finish()
            if choices.sharded:
                # In the host's memory, where it was made: no device may hold it.
                model = make_model(spec, seed)
            model.load_state_dict(result.weights)
            monitor.write_end(result, model, data, recipe.schema.target)

    write_training(out, training, model, data, choices, result)


def write_training(
    out: Path,
    training: Training,
    model: nn.Module,
    data: Data,
    choices: Choices,
    result: Result,
    *,
    packed: bool = False,
) -> None:
    """Calibrate the `model` that is kept, and write into `out` all that a training writes."""
    section = training.recipe.train
    scores, target = score(model, data.validation)
    weights = data.validation.weight
    row_weights = None if weights is None else weights.double().cpu().numpy()
    calibration, lines = calibrate_scores(scores, target, row_weights, section.calibration)
    arrays: dict[str, Array] = {"target": target, "scores": scores.astype(np.float32)}
    arrays |= {} if data.validation.keys is None else {"key": np.asarray(data.validation.keys)}
    arrays |= {} if row_weights is None else {"weight": row_weights}
    write_arrays(out / VALIDATION, arrays)
    write_results(out, training.recipe.model, result, data, section, calibration)
    path, seed = out / "recipe.json", training.seed
    write_recipe(path, seed, section, choices, result, data, packed=packed)
    write_kind(out / "machine.json", choose_device())
    for line in lines:
        print(line)


def call_in_order(*callbacks: Callable[[State], None]) -> Callable[[State], None]:
    """One callback that calls each of `callbacks` with the state."""

    def on_step_end(state: State) -> None:
        for callback in callbacks:
            callback(state)

    return on_step_end


def _load_saved(checkpoints: Path | None, world: World, *, sharded: bool) -> dict[str, Any] | None:
    """The newest checkpoint; of sharded weights, this process's part of it. None: there is none."""
    if sharded:
        return load_part(checkpoints, world)
    # Read once: where one was damaged or is being dropped, two readers might take different.
    saved: dict[str, Any] | None = world.broadcast_object(
        partial(load_checkpoint, checkpoints), newest(checkpoints, world)
    )
    return saved


def _train_without_logs(
    run_training: Callable[..., Result], checkpointer: Checkpointer, num_epochs: int
) -> None:
    """Train in a process other than the first, which alone logs and writes the result."""

    def on_epoch_end(epoch: Epoch, model: nn.Module) -> None:
        # It takes all processes to show the weights that they divide.
        for _ in due_weights(model, epoch.epoch, num_epochs):
            pass

    try:
        run_training(on_epoch_end=on_epoch_end, on_step_end=checkpointer)
    finally:
        checkpointer.finish()
