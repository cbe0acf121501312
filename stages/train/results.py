"""The outputs of a training: the model, how it came about, its metrics and plots."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stages.common.files import rounded, write_csv, write_json
from stages.features.schema import Array
from stages.model.calibration import Calibration
from stages.model.model import ModelSpec, save_model
from stages.training.choices import Choices
from stages.training.params import TrainParams
from stages.training.state import Data, Result

# The rows that the training was validated on, and their scores.
VALIDATION = "validation"
# What stands in `history.csv` before the names that an objective logs.
OBJECTIVE = "objective_"


def write_results(
    out: Path,
    spec: ModelSpec,
    result: Result,
    data: Data,
    section: TrainParams,
    calibration: Calibration,
) -> None:
    """The model that is kept, its metrics, its history and the plots; how it went, in words."""
    kept = result.best_epoch
    assert kept is not None
    save_model(out, spec, result.weights, "model.safetensors")
    write_json(out / "calibration.json", calibration.model_dump())
    metrics = {
        "kept_epoch": kept.epoch,
        "train_loss": rounded(kept.train_loss),
        "validation_loss": rounded(kept.validation_loss),
        f"validation_{data.metric}": rounded(kept.metric),
    }
    write_json(out / "metrics.json", metrics | calibration.fitted())
    names = ("learning_rate", "gradient_norm", "train_loss", "validation_loss")
    logged = sorted(result.history[0].logged)
    write_csv(
        out / "history.csv",
        (
            *("epoch", *names, f"validation_{data.metric}", "skipped_steps"),
            *(f"{OBJECTIVE}{name}" for name in logged),
        ),
        [
            (
                *(e.epoch, *(repr(getattr(e, n)) for n in names), repr(e.metric), e.skipped_steps),
                *(repr(e.logged[name]) for name in logged),
            )
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
        print(f"{skipped} steps were not applied: their loss or gradient was not finite")
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


def write_arrays(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Write each array (rows, …) as a file of a new folder."""
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def write_recipe(
    path: Path,
    seed: int,
    section: TrainParams,
    choices: Choices,
    result: Result,
    data: Data,
    *,
    packed: bool,
) -> None:
    """Write how the model came about, tune's best trial included: the card has it from here.

    `packed`: it was trained in a pack.
    """
    assert result.best_epoch is not None
    came_to = {
        "micro_batch_size": result.micro_batch_size,
        "precision": choices.precision,
        "compile": choices.compiled,
        "channels_last": choices.channels_last,
        **({"packed": True} if packed else {}),
    }
    # How many others there are changes nothing of this one; the loss itself needs no name.
    unsaid = {"replicas", "ensemble", "packed"} | (
        {"objective"} if section.objective.name == "supervised" else set()
    )
    recipe = {
        "seed": seed,
        "train": section.model_dump(exclude=unsaid) | came_to,
        "rows": {"train": len(data.train), "validation": len(data.validation)},
        "epochs": {"kept": result.best_epoch.epoch, "trained": len(result.history)},
    }
    write_json(path, recipe)
