"""Many real trainings of one recipe, in memory: what `benchmarks.honesty` judges.

The project's own stages prepare a table, its own loop trains; each worker reads the data once.
"""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch

from stages.common.config import validate
from stages.common.yamlfile import read_yaml
from stages.evaluate.measure.weighted_metrics import Floats
from stages.features.schema import load_arrays, read_schema, read_statistics
from stages.model.model import make_model, read_spec
from stages.model.predictor import Predictor
from stages.tensors.batch import to_batch
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.device.environment import compute_deterministically
from stages.training.loop import train
from stages.training.params import TrainParams
from stages.training.recipe import BUILT, PREPARED, load_data
from stages.training.state import Data
from tests.support.samples import run_stages, set_params, small_project

# A seed, and the share of the train rows that it trains on.
Job = tuple[int, float]


@dataclass(frozen=True)
class Case:
    """A table, the recipe that is trained on it, and how many test rows a pair is judged on."""

    name: str
    table: Path
    target: str
    changes: dict[str, object]
    num_rows: int


@dataclass(frozen=True)
class Pool:
    """The target of all test rows (rows,), and every training's prediction of them."""

    task: str
    target: np.ndarray
    predicted: dict[Job, Floats]


def prepare(case: Case, folder: Path) -> None:
    """The stages before training, with so many test rows that pairs can draw their own."""
    table = pl.read_parquet(case.table) if case.table.suffix == ".parquet" else None
    table = pl.read_csv(case.table, null_values="?") if table is None else table
    split_params = {"seed": 0, "validation": 0.1, "test": 0.4}
    changes = {
        **case.changes,
        "prepare.target": case.target,
        "prepare.key": None,
        "prepare.split": split_params,
        "prepare.columns": {"id": "exclude"} if "id" in table.columns else {},
    }
    project = small_project(folder, table, changes)
    with contextlib.redirect_stdout(None):
        run_stages(project, "prepare")
        if read_schema(folder / PREPARED).target.task == "regression":
            set_params(project, {"train.loss": {"name": "MSELoss"}})
        run_stages(project, "build")


def start(folder: Path) -> None:
    """What each worker does first."""
    os.chdir(folder)
    torch.set_num_threads(1)
    compute_deterministically()


@cache
def loaded() -> tuple[Data, Predictor, dict[str, np.ndarray], TrainParams]:
    """The data of this worker, read once."""
    schema, statistics = read_schema(PREPARED), read_statistics(PREPARED)
    predictor = Predictor(make_model(read_spec(BUILT), 0), schema, statistics)
    data, _ = load_data(schema, statistics, torch.device("cpu"))
    params = validate(TrainParams, read_yaml(Path("params.yaml"))["train"], at="train")
    return data, predictor, load_arrays(PREPARED / "test"), params


def train_all(workers: ProcessPoolExecutor, jobs: Sequence[Job]) -> Pool:
    """Train each job of a seed and a share of the rows; what each predicts of the test rows."""
    task, target = workers.submit(task_and_target).result()
    predicted = workers.map(predict_with, jobs, chunksize=8)
    return Pool(task, target, dict(zip(jobs, predicted, strict=True)))


def task_and_target() -> tuple[str, np.ndarray]:
    """Of the test rows: codes, or values in units of the deviation."""
    data, _, arrays, _ = loaded()
    return data.task, np.array(arrays["target"])


def predict_with(job: Job) -> Floats:
    """Train under a seed on a share of the train rows; predict all test rows."""
    seed, share = job
    data, predictor, arrays, params = loaded()
    rows = np.random.default_rng(seed).permutation(len(data.train))
    kept = torch.from_numpy(np.sort(rows[: round(share * len(rows))]))
    part = TensorSource(*data.train.take(kept))
    data = Data(part, data.validation, data.task, data.deviation)
    model = make_model(read_spec(BUILT), seed)
    result = train(model, data, params, seed, World(), lambda *_: None)
    model.load_state_dict(result.weights)
    with torch.inference_mode():
        scores = model.eval()(to_batch(arrays, predictor.statistics)).double()
    if data.task == "regression":
        return np.asarray(scores[:, 0].numpy())
    return np.asarray(scores.softmax(dim=1).numpy())
