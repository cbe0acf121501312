"""The results of a replica's trainings as one: the model whose members they are, and its figures.

Folds have the same recipe and other rows, members of an ensemble the same rows and other recipes.
With both, the members of each fold are joined first.
"""

import math
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from safetensors.torch import load_file

from stages.common.files import read_csv, read_json, rounded, write_csv, write_json
from stages.features.schema import Array, load_arrays
from stages.model.model import ModelSpec, read_spec, save_model
from stages.train.calibrate import calibrate_scores
from stages.train.join_members import LEARNED, join_figures, join_spec
from stages.train.recipe import Recipe
from stages.train.results import VALIDATION, write_arrays
from stages.training.optim.monitored_metric import metric_of
from stages.training.params import CalibrationParams
from stages.training.recipe import PREPARED

# What `history.csv` has of the loss that a training learns by.
LOSSES = ("train_loss", "validation_loss")


def join_trainings(results: Sequence[Path], out: Path, recipe: Recipe) -> None:
    """Write into `out` what one training writes, from the folders of a replica's trainings.

    The model is the mean of theirs, of an ensemble by the members' weights.
    """
    num_folds, metric = recipe.train.folds or 0, metric_of(recipe.schema.target.task)
    if not recipe.members:
        join_folds(results, out, metric)
    elif not num_folds:
        join_members(results, out, recipe, load_arrays(PREPARED / "train"))
    else:
        with TemporaryDirectory(dir=out, prefix=".folds-") as temporary:
            folds = [Path(temporary) / str(fold) for fold in range(num_folds)]
            for place, fold in enumerate(folds):
                fold.mkdir()
                # It has learned from the rows on which the others were validated.
                others = [*results[:place], *results[place + 1 : num_folds]]
                learned = _concatenate([load_arrays(each / VALIDATION) for each in others])
                join_members(results[place::num_folds], fold, recipe, learned)
            join_folds(folds, out, metric)
    calibrate(out, recipe.train.calibration)


def join_folds(folds: Sequence[Path], out: Path, metric: str) -> None:
    """Write the mean of the folds' models, and what is said of it, all but the calibration.

    Each row of train and validation is judged by the one fold that has not learned from it, so
    metrics and calibration are of rows that are new to the model.
    """
    save_members(folds, out, read_spec(folds[0]).model_copy(update={"members": len(folds)}))
    arrays = [load_arrays(folder / VALIDATION) for folder in folds]
    sizes = [len(each["target"]) for each in arrays]
    for fold, (each, size) in enumerate(zip(arrays, sizes, strict=True)):
        each["fold"] = np.full(size, fold, np.int64)
    write_arrays(out / VALIDATION, _concatenate(arrays))
    metrics = [read_json(folder / "metrics.json") for folder in folds]
    write_json(out / "metrics.json", _join_metrics(metrics, sizes, metric))
    write_history(folds, out, metric)
    for name in ("recipe.json", "machine.json"):
        shutil.copyfile(folds[0] / name, out / name)


def join_members(
    members: Sequence[Path], out: Path, recipe: Recipe, learned: dict[str, Array]
) -> None:
    """Write the weighted mean of the members' models, and the same of it as `join_folds`.

    All were validated on the same rows; `learned` are the arrays of those that they learned from.
    """
    save_members(members, out, join_spec([read_spec(each) for each in members], recipe))
    arrays = [load_arrays(folder / VALIDATION) for folder in members]
    known = {name: learned[name] for name in LEARNED if name in learned}
    scores, judged = join_figures(arrays, recipe, known)
    write_arrays(out / VALIDATION, {**arrays[0], "scores": scores})
    metrics = [read_json(folder / "metrics.json") for folder in members]
    metric, comparable = metric_of(recipe.schema.target.task), have_one_loss(recipe)
    joined = _join_metrics(metrics, recipe.weights, metric)
    joined |= {"validation_loss": rounded(judged[0]), f"validation_{metric}": rounded(judged[1])}
    if not comparable:
        del joined["train_loss"]
    write_json(out / "metrics.json", joined)
    write_history(members, out, metric, without=() if comparable else LOSSES)
    recipes = [read_json(folder / "recipe.json") for folder in members]
    said = [
        {"weight": part.weight, "set": each.overrides, "seed": own["seed"], "epochs": own["epochs"]}
        for part, each, own in zip(read_spec(out).parts, recipe.members, recipes, strict=True)
    ]
    write_json(out / "recipe.json", recipes[0] | {"ensemble": said})
    shutil.copyfile(members[0] / "machine.json", out / "machine.json")


def have_one_loss(recipe: Recipe) -> bool:
    """Check whether all members learn by the same loss: others are numbers without a mean."""
    sections = [member.train for member in recipe.members]
    first, *others = [(s.loss, s.class_weights, s.objective) for s in sections]
    return all(other == first for other in others)


def save_members(folders: Sequence[Path], out: Path, spec: ModelSpec) -> None:
    """Write the model that `spec` describes, from the weights of its members."""
    weights = {
        f"members.{number}.{name}": weight
        for number, folder in enumerate(folders)
        for name, weight in load_file(folder / "model.safetensors").items()
    }
    save_model(out, spec, weights, "model.safetensors")


def calibrate(out: Path, params: CalibrationParams) -> None:
    """Calibrate the model in `out` on the scores of its validation rows."""
    rows = load_arrays(out / VALIDATION)
    calibration, lines = calibrate_scores(
        np.asarray(rows["scores"], np.float64),
        np.asarray(rows["target"]),
        None if "weight" not in rows else np.asarray(rows["weight"], np.float64),
        params,
    )
    write_json(out / "calibration.json", calibration.model_dump())
    write_json(out / "metrics.json", read_json(out / "metrics.json") | calibration.fitted())
    for line in lines:
        print(line)


def _concatenate(arrays: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([each[name] for each in arrays]) for name in arrays[0]}


def _join_metrics(
    metrics: Sequence[dict[str, float]], counts: Sequence[float], metric: str
) -> dict[str, float]:
    """Means over the trainings, each by its count; of what folds validate, over all rows."""

    def mean(name: str, *, squared: bool = False) -> float:
        values = [found[name] ** 2 if squared else found[name] for found in metrics]
        value = float(np.average(values, weights=counts))
        return rounded(math.sqrt(value) if squared else value)

    return {
        "kept_epoch": round(mean("kept_epoch")),
        **({"train_loss": mean("train_loss")} if "train_loss" in metrics[0] else {}),
        "validation_loss": mean("validation_loss"),
        f"validation_{metric}": mean(f"validation_{metric}", squared=metric == "rmse"),
    }


def write_history(
    folders: Sequence[Path], out: Path, metric: str, without: Collection[str] = ()
) -> None:
    """Write `history.csv` and the plots: of each epoch the mean of those that reached it.

    What is called as in `without` is left out; where losses are, their plot has no points.
    """
    histories = [read_csv(folder / "history.csv") for folder in folders]
    names = [name for name in histories[0][0] if name not in ("epoch", *without)]
    rows = []
    for epoch in range(1, max(map(len, histories)) + 1):
        there = [history[epoch - 1] for history in histories if len(history) >= epoch]
        rows.append([epoch, *(float(np.mean([float(row[n]) for row in there])) for n in names)])
    write_csv(out / "history.csv", ("epoch", *names), [(r[0], *map(repr, r[1:])) for r in rows])
    places = {name: 1 + place for place, name in enumerate(names)}
    loss = [places[name] for name in LOSSES if name in places]
    kept = places[f"validation_{metric}"]
    write_csv(
        out / "plots" / "loss.csv",
        ("epoch", "train", "validation"),
        [(row[0], *(rounded(row[place]) for place in loss)) for row in rows if loss],
    )
    write_csv(
        out / "plots" / "metric.csv",
        ("epoch", "validation"),
        [(row[0], rounded(row[kept])) for row in rows],
    )
