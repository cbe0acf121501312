"""Small parameters, tables and trainings that several test files start from."""

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch

from pipeline.params.template import apply_recipe
from stages.common.params import read_params
from stages.common.yamlfile import read_yaml
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.model.predictor import Predictor
from stages.prepare.params import PrepareParams
from stages.runtime.outputs import stage_outputs
from stages.training.data.source import TensorSource
from stages.training.params import TrainParams
from stages.training.state import Data
from tests.conftest import ROOT, Project, project_environment


def prepare_params(**changes: object) -> PrepareParams:
    section = {
        "source": "table.csv",
        "key": None,
        "target": "y",
        "task": "auto",
        "target_transform": None,
        "columns": {},
        "drop_missing_target": False,
        "structure": None,
        "missing": [],
        "weight": None,
        "duplicates": "warn",
        "image": None,
        "normalize": None,
        "pretrained": None,
        "split": {"seed": 0, "validation": 0.2, "test": 0.2},
        "expectations": "none.yaml",
    }
    return PrepareParams.model_validate({**section, **changes})


def train_params(**changes: object) -> TrainParams:
    section = {
        "epochs": 3,
        "batch_size": 16,
        "micro_batch_size": None,
        "dataset": None,
        "augment": None,
        "loss": {"name": "CrossEntropyLoss"},
        "objective": {"name": "supervised"},
        "class_weights": None,
        "optimizer": {"name": "SGD", "lr": 0.1},
        "groups": None,
        "schedule": {"name": "ConstantLR", "factor": 1.0},
        "clip_norm": None,
        "clip_value": None,
        "ema": None,
        "swa": None,
        "precision": "auto",
        "compile": "auto",
        "channels_last": "auto",
        "parallel": "ddp",
        "deterministic": True,
        "early_stopping": {"metric": "loss", "patience": None},
        "calibration": {"temperature": False, "threshold": None},
        "replicas": 1,
        "folds": None,
        "ensemble": None,
        "packed": "auto",
    }
    return TrainParams.model_validate({**section, **changes})


def clusters(num_rows: int, num_classes: int = 3, seed: int = 0) -> TensorSource:
    """Points of four numbers around a centre for each class; not all of them separable."""
    random = np.random.default_rng(seed)
    target = random.integers(num_classes, size=num_rows)
    centres = np.random.default_rng(99).normal(size=(num_classes, 4))
    points = (centres[target] + random.normal(size=(num_rows, 4))).astype(np.float32)
    return TensorSource({"numeric": torch.from_numpy(points)}, torch.from_numpy(target))


def line(num_rows: int, seed: int = 0) -> TensorSource:
    """Points of four numbers and a noisy linear function of them."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(num_rows, 4))
    target = points @ [1.0, -2.0, 0.5, 0.0] + 0.1 * random.normal(size=num_rows)
    batch = {"numeric": torch.from_numpy(points.astype(np.float32))}
    return TensorSource(batch, torch.from_numpy(target.astype(np.float32)))


def classification(num_rows: int = 50) -> Data:
    return Data(clusters(num_rows, seed=1), clusters(30, seed=2), "classification")


def regression(num_rows: int = 50) -> Data:
    return Data(line(num_rows, seed=1), line(30, seed=2), "regression", deviation=2.0)


def mixed_table(num_rows: int = 120) -> pl.DataFrame:
    """A column of every kind but images, with gaps, and the target `y` of two classes."""
    random = np.random.default_rng(0)
    size = random.normal(10, 3, num_rows)
    town = random.choice(["Bergen", "Oslo", "Tromsø"], num_rows)
    smoker = random.random(num_rows) < 0.3
    score = (size - 10) / 3 + (town == "Oslo") + smoker + random.normal(0, 0.5, num_rows)
    table = pl.DataFrame(
        {
            "id": np.arange(1000, 1000 + num_rows),
            "size": size,
            "town": town,
            "smoker": smoker,
            "y": np.where(score > 0.5, "ill", "well"),
        }
    )
    number = pl.int_range(pl.len())
    return table.with_columns(
        size=pl.when(number % 7 != 3).then("size"),
        town=pl.when(number % 11 != 5).then("town"),
        smoker=pl.when(number % 13 != 6).then("smoker"),
    )


# A small mlp without a search that learns `y` from the other columns of a table.
SMALL: dict[str, Any] = {
    "prepare.source": "data/raw/table.parquet",
    "prepare.target": "y",
    "prepare.expectations": "data/raw/none.expectations.yaml",
    "build.model": {"name": "mlp", "width": 8},
    "tune.space": {},
    "train.epochs": 3,
    "train.batch_size": 16,
    "train.replicas": 1,
    "infer.input": "data/raw/table.parquet",
}


def small_project(folder: Path, table: pl.DataFrame, changes: dict[str, Any]) -> Project:
    """A folder in which stages run, on a table of the test's own, as `SMALL`; no repository."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy2(ROOT / name, folder / name)
    shutil.copytree(
        ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "data/raw").mkdir(parents=True)
    shutil.copy2(ROOT / "data/raw/none.expectations.yaml", folder / "data/raw")
    table.write_parquet(folder / "data/raw/table.parquet")
    project = Project(folder)
    set_params(project, {**SMALL, **changes})
    return project


def recipe_params(name: str) -> dict[str, Any]:
    """The values of `params.yaml` as the recipe writes it."""
    from ruamel.yaml import YAML

    text = apply_recipe(ROOT / f"docs/recipes/{name}.yaml")
    return cast(dict[str, Any], YAML(typ="safe").load(text))


def run_stages(project: Project, *stages: str) -> None:
    """Run stages in this process: what `python -m stages.X` does, without the start of a process.

    What belongs to a process stays out: signals, exit codes, the check of library versions.
    """
    with contextlib.chdir(project.path):
        for stage in stages:
            work = getattr(importlib.import_module(f"stages.{stage}.__main__"), stage)
            with stage_outputs(stage) as out:
                work(read_params(stage), out)


def trained_files(project: Project) -> dict[str, bytes]:
    """Every file that train has written, by its path in `data/train`."""
    folder = project.path / "data/train"
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def ready_to_train(
    folder: Path, changes: dict[str, Any], table: pl.DataFrame | None = None
) -> Project:
    """A small project of which everything before train has run, on `mixed_table` by default."""
    project = small_project(folder, mixed_table() if table is None else table, changes)
    run_stages(project, "prepare", "build", "tune")
    return project


def set_params(project: Project, changes: dict[str, Any]) -> None:
    """Set values of the project's `params.yaml` by their paths, such as `train.epochs`."""
    from ruamel.yaml import YAML

    path = project.path / "params.yaml"
    tree = read_yaml(path)
    for key, value in changes.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(tree, file)


class Weighted(torch.nn.Module):
    """The sum of a row's numbers, twice as much in a batch of which `doubles` says so."""

    def __init__(self, doubles: Callable[[torch.Tensor], bool] | None = None) -> None:
        super().__init__()
        self.doubles = doubles

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers = batch["numeric"]
        if self.doubles is not None and self.doubles(numbers):
            numbers = 2 * numbers
        return numbers.sum(dim=1, keepdim=True)


def of_values(model: torch.nn.Module) -> tuple[Predictor, pl.DataFrame]:
    """A predictor of values, and rows for it; a column may have the name of an output."""
    features = [Feature(name=name, kind="numeric") for name in ("a", "prediction")]
    schema = Schema(key=None, features=features, target=Target(name="y", task="regression"))
    moments = {
        "a": Moments(mean=1e6, deviation=1e3),
        "prediction": Moments(mean=0.0, deviation=2.0),
    }
    statistics = Statistics(numeric=moments, image=[], target=Moments(mean=50.0, deviation=5.0))
    table = pl.DataFrame({"a": [1e6, 1.001e6, None, 1e6 + 1], "prediction": [0.0, 2.0, 4.0, 6.0]})
    return Predictor(model, schema, statistics), table


@contextlib.contextmanager
def training(
    project: Project, *, runner: Sequence[str] = (), **variables: str
) -> "Iterator[subprocess.Popen[str]]":
    """The stage train in a group of its own, which is killed if it has not ended by itself.

    `runner` is what runs the module, if not Python itself.
    """
    with subprocess.Popen(
        [sys.executable, *runner, "-m", "stages.train"],
        cwd=project.path,
        env={**project_environment(), "REPRISE_CHECKPOINT_SECONDS": "0.05", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


class Linear(torch.nn.Module):
    """The smallest model of `classification`, with the same weights each time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.output = torch.nn.Linear(4, 3)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        scores: torch.Tensor = self.output(batch["numeric"])
        return scores
