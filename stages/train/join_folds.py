"""The result of all folds of a recipe as one: the model whose members they are, and its figures."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from stages.common.files import read_csv, read_json, rounded, write_csv, write_json
from stages.features.schema import Array
from stages.model.calibration import Calibration
from stages.model.model import read_spec, save_model
from stages.train.calibrate import calibrate_scores
from stages.train.results import VALIDATION, write_arrays
from stages.training.params import CalibrationParams


def join_folds(folds: Sequence[Path], out: Path, params: CalibrationParams, metric: str) -> None:
    """Write into `out` what one training writes, from the folders that those of all folds wrote.

    The model is the mean of theirs. Each row of train and validation is judged by the one fold that
    has not learned from it, so metrics and calibration are of rows that are new to the model.
    """
    spec = read_spec(folds[0]).model_copy(update={"members": len(folds)})
    weights = {
        f"members.{fold}.{name}": weight
        for fold, folder in enumerate(folds)
        for name, weight in load_file(folder / "model.safetensors").items()
    }
    save_model(out, spec, weights, "model.safetensors")
    validation = _join_validation(folds)
    write_arrays(out / VALIDATION, validation)
    calibration, lines = calibrate_scores(
        np.asarray(validation["scores"], np.float64),
        np.asarray(validation["target"]),
        None if "weight" not in validation else np.asarray(validation["weight"], np.float64),
        params,
    )
    write_json(out / "calibration.json", calibration.model_dump())
    sizes = [len(np.load(folder / VALIDATION / "target.npy")) for folder in folds]
    metrics = [read_json(folder / "metrics.json") for folder in folds]
    write_json(out / "metrics.json", _join_metrics(metrics, sizes, metric, calibration))
    _write_history(folds, out, metric)
    for name in ("recipe.json", "machine.json"):
        shutil.copyfile(folds[0] / name, out / name)
    for line in lines:
        print(line)


def _join_validation(folds: Sequence[Path]) -> dict[str, Array]:
    """The validation rows of all folds, and the fold of each."""
    parts: dict[str, list[Array]] = {}
    for fold, folder in enumerate(folds):
        for file in sorted((folder / VALIDATION).glob("*.npy")):
            parts.setdefault(file.stem, []).append(np.load(file, allow_pickle=False))
        num_rows = len(parts["target"][-1])
        parts.setdefault("fold", []).append(np.full(num_rows, fold, np.int64))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _join_metrics(
    metrics: Sequence[dict[str, float]],
    sizes: Sequence[int],
    metric: str,
    calibration: Calibration,
) -> dict[str, float]:
    """Means over the folds; of what is validated, over all rows."""

    def mean(name: str, *, squared: bool = False) -> float:
        values = [found[name] ** 2 if squared else found[name] for found in metrics]
        value = float(np.average(values, weights=sizes))
        return rounded(math.sqrt(value) if squared else value)

    joined = {
        "kept_epoch": round(float(np.mean([found["kept_epoch"] for found in metrics]))),
        "train_loss": mean("train_loss"),
        "validation_loss": mean("validation_loss"),
        f"validation_{metric}": mean(f"validation_{metric}", squared=metric == "rmse"),
    }
    return joined | calibration.fitted()


def _write_history(folds: Sequence[Path], out: Path, metric: str) -> None:
    """Write `history.csv` and the plots: of each epoch the mean over the folds that reached it."""
    histories = [read_csv(folder / "history.csv") for folder in folds]
    names = [name for name in histories[0][0] if name != "epoch"]
    rows = []
    for epoch in range(1, max(map(len, histories)) + 1):
        there = [history[epoch - 1] for history in histories if len(history) >= epoch]
        rows.append([epoch, *(float(np.mean([float(row[n]) for row in there])) for n in names)])
    write_csv(out / "history.csv", ("epoch", *names), [(r[0], *map(repr, r[1:])) for r in rows])
    places = {name: 1 + place for place, name in enumerate(names)}
    loss = [places["train_loss"], places["validation_loss"]]
    kept = places[f"validation_{metric}"]
    write_csv(
        out / "plots" / "loss.csv",
        ("epoch", "train", "validation"),
        [(row[0], *(rounded(row[place]) for place in loss)) for row in rows],
    )
    write_csv(
        out / "plots" / "metric.csv",
        ("epoch", "validation"),
        [(row[0], rounded(row[kept])) for row in rows],
    )
