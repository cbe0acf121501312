"""A training from files to files: load, train, write. Every process of a training runs it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from stages.common.config import Overrides
from stages.common.params import Params
from stages.common.yamlfile import read_yaml
from stages.features.schema import Schema, read_schema
from stages.model.model import ModelSpec, make_model, read_spec
from stages.train.calibrate import calibrate
from stages.train.checkpoints.checkpoint import history_of, load_checkpoint, newest, unpack
from stages.train.checkpoints.checkpointer import Saver
from stages.train.checkpoints.sharded_checkpoint import load_part
from stages.train.checkpoints.signals import told_to_stop
from stages.train.kind import write_kind
from stages.train.logs.monitor import open_watch
from stages.train.logs.tensorboard import due_weights
from stages.train.results import write_recipe, write_results
from stages.train.setup import start
from stages.training.device.device import choose_device
from stages.training.device.distributed import World
from stages.training.device.environment import compute_deterministically
from stages.training.device.out_of_memory import read_notes
from stages.training.loop import train
from stages.training.params import TrainParams
from stages.training.recipe import BUILT, PREPARED, override_model, override_train, seed_of
from stages.training.state import Epoch, Result, State

BEST = Path("data/tune/best.yaml")


def read_recipe(
    params: Params, best: Path | None = BEST
) -> tuple[TrainParams, ModelSpec, Schema, Overrides]:
    """What to train and how: `params.yaml` and `model.json`, with the winner of tune on top.

    It stands in the file `best`; None: there is none.
    """
    overrides: Overrides = {} if best is None else read_yaml(best) or {}
    section = override_train(params.part("train"), overrides)
    schema = read_schema(PREPARED)
    return section, override_model(read_spec(BUILT), overrides, schema), schema, overrides


def fit(
    params: Params, out: Path, world: World, checkpoints: Path | None, replica: int = 0
) -> None:
    """Train the recipe and write model, history, metrics and plots into `out` (one process
    of each machine writes).

    It goes on from what lies in the folder `checkpoints`, and keeps its own there. A replica
    other than 0 has a seed and first weights of its own.
    """
    section, spec, schema, overrides = read_recipe(params)
    compute_deterministically(asked=section.deterministic)
    seed = seed_of(params.seed, replica)
    model, data, chosen = start(section, spec, schema, overrides, seed, replica, world)
    if not chosen.divided:
        model.to(choose_device())
    saved = _load_saved(checkpoints, world, divided=chosen.divided)

    def restore(state: State) -> None:
        unpack(saved, world, state)
        size = state.result.micro_batch_size
        state.result.micro_batch_size = read_notes(checkpoints, size, world)

    with told_to_stop() as told:
        save = Saver(checkpoints, world, told)
        train_it = partial(train, model, data, section, seed, world, restore=restore, save=save)
        if not world.leads:
            _train_beside(train_it, save, section.epochs)
            return
        done = history_of(saved)
        with open_watch(spec, section, seed, data, done, checkpoints, world) as watch:
            watch.board.write_start(model, data)
            for epoch in done:
                watch(epoch, None)
            try:
                result = train_it(watch=watch, save=tell_before(watch.progress.after_step, save))
            finally:
                watch.progress.close()
                save.finish()
            if chosen.divided:
                # In the host's memory, where it was made: no device may hold it.
                model = make_model(spec, seed)
            model.load_state_dict(result.weights)
            watch.write_end(result, model, data, schema.target)

    calibration, lines = calibrate(model, data.validation, section.calibration)
    write_results(out, spec, result, data, section, calibration)
    write_recipe(out / "recipe.json", seed, section, chosen, result, data)
    write_kind(out / "machine.json", choose_device())
    for line in lines:
        print(line)


def tell_before(
    tell: Callable[[State], None], save: Callable[[State], None]
) -> Callable[[State], None]:
    """What tells of a state and then saves it, if it is time for that."""

    def after_step(state: State) -> None:
        tell(state)
        save(state)

    return after_step


def _load_saved(checkpoints: Path | None, world: World, *, divided: bool) -> dict[str, Any] | None:
    """The newest checkpoint; of divided weights, this process's part of it. None: there is none."""
    if divided:
        return load_part(checkpoints, world)
    # Read once: where one was damaged or is being dropped, two readers might take different.
    saved: dict[str, Any] | None = world.share(
        partial(load_checkpoint, checkpoints), newest(checkpoints, world)
    )
    return saved


def _train_beside(train_it: Callable[..., Result], save: Saver, num_epochs: int) -> None:
    """Train beside the first process, which alone tells of it and writes the result."""

    def watch(epoch: Epoch, model: nn.Module) -> None:
        # It takes all processes to show the weights that they divide.
        for _ in due_weights(model, epoch.epoch, num_epochs):
            pass

    try:
        train_it(watch=watch)
    finally:
        save.finish()
