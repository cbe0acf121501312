"""A training from files to files: load, train, write. Every process of a training runs it."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from torch import nn

from stages.common.calibration import UNCALIBRATED, Calibration
from stages.common.files import rounded, write_csv, write_json
from stages.common.model import ModelSpec, make_model, read_spec, save_model
from stages.common.params import Params
from stages.common.schema import Schema, read_schema, read_statistics
from stages.common.section import Overrides
from stages.common.yamlfile import read_yaml
from stages.train.assemble import sizes
from stages.train.board import (
    chosen_values,
    due_weights,
    kept_scalars,
    open_board,
    run_folder,
    scalars_of,
)
from stages.train.calibrate import calibrate
from stages.train.checkpoint import history_of, load_checkpoint, newest, unpack
from stages.train.class_weights import tell_weights, weigh_classes
from stages.train.compiled import choose_compile
from stages.train.groups import tell_groups
from stages.train.layout import choose_layout
from stages.train.loggers import open_loggers
from stages.train.loop import train
from stages.train.machine import World, choose_device, choose_threads, compute_deterministically
from stages.train.params import TrainParams
from stages.train.parts import load_part
from stages.train.precision import choose_precision
from stages.train.progress import show_progress
from stages.train.recipe import (
    BUILT,
    PREPARED,
    load_data,
    load_weights,
    override_model,
    override_train,
    seed_of,
)
from stages.train.replicas import num_sharing
from stages.train.saver import Saver, told_to_stop
from stages.train.sharded import divides_weights
from stages.train.state import Data, Epoch, Result, State

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
    statistics = read_statistics(PREPARED)
    device = choose_device()
    model = load_weights(spec, seed, replica)
    num_weights = sum(weight.numel() for weight in model.parameters())
    threads = choose_threads(num_weights, section.batch_size, world)
    sharing = num_sharing(spec, section.replicas, section.batch_size, world)
    data, place = load_data(schema, statistics, device, sharing, section.dataset)
    processes = f"{world.size} process" + ("es" if world.size > 1 else "")
    processes += f" on {world.num_nodes} machines" if world.num_nodes > 1 else ""
    precision = choose_precision(section.precision, device)
    last, layout = choose_layout(
        section.channels_last, precision, device, data.train.take(slice(0, 1))[0]
    )
    divided, counts = divides_weights(section, world), sizes(model, data, section)
    compiles, why = choose_compile(section.compile, device, *counts, divided=divided)
    print(f"{spec.name}: {num_weights:,} weights on {device}; {processes}")
    # What rules have chosen: a parameter overrides what changes the result, else the environment.
    print(*filter(None, (place, threads, why, precision, layout)), sep="; ")
    for path, value in overrides.items():
        print(f"from tune: {path} = {value}")
    if section.groups is not None:
        print(*tell_groups(model, section.groups), sep="\n")
    if section.class_weights is not None:
        weights = weigh_classes(section.class_weights, data.classes, data.train.target)
        print(*tell_weights(weights, data.classes, data.train.target), sep="\n")

    if divided:
        saved = load_part(checkpoints, world)
    else:
        model.to(device)
        # Read once: where one was damaged or is being dropped, two readers might take different.
        saved = world.share(partial(load_checkpoint, checkpoints), newest(checkpoints, world))
    restore = partial(unpack, saved, world)
    with told_to_stop() as told:
        save = Saver(checkpoints, world, told)
        if not world.leads:
            _follow(model, data, section, seed, world, restore, save)
            return
        done = history_of(saved)
        advance, close = show_progress(section.epochs, data.metric, section.replicas, len(done))
        name, chosen = run_folder(spec, section, seed).name, chosen_values(spec, section, seed)
        # Of several machines the first tells them; each has a board of its own.
        told_by = open_loggers(name, chosen, checkpoints) if world.rank == 0 else nullcontext()
        with open_board(spec, section, seed, data.metric) as board, told_by as log:
            board.write_start(model, data)

            def watch(epoch: Epoch, model: nn.Module | None) -> None:
                advance(epoch)
                board.write_epoch(epoch, model)
                if log is not None:
                    log(epoch.epoch, scalars_of(epoch, data.metric))

            for epoch in done:
                watch(epoch, None)

            try:
                result = train(model, data, section, seed, world, watch, restore, save)
            finally:
                close()
                save.finish()
            if divided:
                # In the host's memory, where it was made: no device may hold it.
                model = make_model(spec, seed)
            model.load_state_dict(result.weights)
            board.write_end(result, model, data, schema.target)
            assert result.kept is not None
            if log is not None:
                log(len(result.history), kept_scalars(result.kept, data.metric))
    calibration, lines = calibrate(model, data.validation, section.calibration)
    _write(out, spec, result, data, section, calibration)
    chosen = {"precision": precision, "compile": compiles, "channels_last": last}
    _write_recipe(out / "recipe.json", seed, section, chosen, result, data)
    for line in lines:
        print(line)


def _follow(
    model: nn.Module,
    data: Data,
    section: TrainParams,
    seed: int,
    world: World,
    restore: Callable[[State], None],
    save: Saver,
) -> None:
    """Train beside the first process, which alone tells of it and writes the result."""

    def watch(epoch: Epoch, model: nn.Module) -> None:
        # It takes all processes to show the weights that they divide.
        for _ in due_weights(model, epoch.epoch, section.epochs):
            pass

    try:
        train(model, data, section, seed, world, watch, restore, save)
    finally:
        save.finish()


def _write(
    out: Path,
    spec: ModelSpec,
    result: Result,
    data: Data,
    section: TrainParams,
    calibration: Calibration,
) -> None:
    kept = result.kept
    assert kept is not None
    save_model(out, spec, result.weights, "model.safetensors")
    write_json(out / "calibration.json", calibration.model_dump())
    metrics = {
        "kept_epoch": kept.epoch,
        "train_loss": rounded(kept.train_loss),
        "validation_loss": rounded(kept.validation_loss),
        f"validation_{data.metric}": rounded(kept.metric),
    }
    # What was not fitted is not among them.
    fitted = calibration.model_dump().items() - UNCALIBRATED.model_dump().items()
    write_json(out / "metrics.json", metrics | dict(sorted(fitted)))
    names = ("learning_rate", "gradient_norm", "train_loss", "validation_loss")
    write_csv(
        out / "history.csv",
        ("epoch", *names, f"validation_{data.metric}", "skipped_steps"),
        [
            (e.epoch, *(repr(getattr(e, n)) for n in names), repr(e.metric), e.skipped_steps)
            for e in result.history
        ],
    )
    write_csv(
        out / "plots" / "loss.csv",
        ("epoch", "train", "validation"),
        [(e.epoch, rounded(e.train_loss), rounded(e.validation_loss)) for e in result.history],
    )
    write_csv(
        out / "plots" / "metric.csv",
        ("epoch", "validation"),
        [(e.epoch, rounded(e.metric)) for e in result.history],
    )
    if skipped := sum(epoch.skipped_steps for epoch in result.history):
        print(f"{skipped} steps were not applied: their loss or gradient was no finite number")
    if section.swa is not None and kept.epoch < section.swa.start:
        print(
            f"the kept weights, of epoch {kept.epoch}, are no average: that begins with epoch "
            f"{section.swa.start} (train.swa.start)"
        )
    which = "last" if section.early_stopping is None else "best"
    stopped = "" if len(result.history) == section.epochs else " (stopped early)"
    print(
        f"{which} epoch {kept.epoch} of {len(result.history)}{stopped}: validation loss "
        f"{kept.validation_loss:.4f}, {data.metric} {kept.metric:.4f}"
    )


def _write_recipe(
    path: Path,
    seed: int,
    section: TrainParams,
    chosen: Mapping[str, object],
    result: Result,
    data: Data,
) -> None:
    """How the model came about, tune's winner included: the card has it from here.

    `chosen` is what `auto` came to.
    """
    assert result.kept is not None
    recipe = {
        "seed": seed,
        # How many others there are changes nothing of this one.
        "train": section.model_dump(exclude={"replicas"})
        | {"micro_batch_size": result.micro_batch_size, **chosen},
        "rows": {"train": len(data.train), "validation": len(data.validation)},
        "epochs": {"kept": result.kept.epoch, "trained": len(result.history)},
    }
    write_json(path, recipe)
