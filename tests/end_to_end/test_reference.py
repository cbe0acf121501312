"""The numbers are right: whole trainings against closed forms, scikit-learn and a known score."""

import statistics
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.params.template import apply_recipe
from stages.common.files import read_json
from tests.conftest import Project, copy_project
from tests.support.samples import run_stages, set_params

STAGES = ("prepare", "build", "tune", "train", "evaluate")
SEEDS = range(5)


# Great Expectations takes seconds to import and changes no array.
NO_EXPECTATIONS = {"prepare.expectations": "data/raw/none.expectations.yaml"}


def project_with(recipe: str, folder: Path) -> Project:
    folder.mkdir()
    project = copy_project(folder)
    text = apply_recipe(project.path / f"docs/recipes/{recipe}.yaml")
    (project.path / "params.yaml").write_text(text, encoding="utf-8")
    return project


def rows_of(project: Project, table: str, target: str) -> dict[str, tuple[pl.DataFrame, pl.Series]]:
    """Features and target of each split, from the raw table by the rows' keys."""
    raw = pl.read_parquet(project.path / f"data/raw/{table}.parquet")
    splits = {}
    for split in ("train", "validation", "test"):
        keys = np.load(project.path / f"data/prepare/{split}/key.npy")
        rows = raw.filter(pl.col("id").is_in(keys.tolist()))
        assert rows.height == len(keys) > 0
        splits[split] = rows.drop("id", target), rows[target]
    return splits


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_linear_regression_is_least_squares(tmp_path: Path, seed: int) -> None:
    project = project_with("linear_regression", tmp_path / "project")
    set_params(project, {"prepare.split.seed": seed, **NO_EXPECTATIONS})
    run_stages(project, *STAGES)
    splits = rows_of(project, "diabetes", "progression")

    def with_one(rows: pl.DataFrame) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.column_stack([rows.to_numpy(), np.ones(rows.height)])

    x, y = splits["train"]
    solution = np.linalg.lstsq(with_one(x), y.to_numpy())[0]
    x, y = splits["test"]
    expected = float(np.sqrt(((with_one(x) @ solution - y.to_numpy()) ** 2).mean()))
    rmse = read_json(project.path / "data/evaluate/metrics.json")["rmse"]
    assert rmse == pytest.approx(expected, rel=0.005)


def test_logistic_regression_is_as_right_as_scikit_learn(tmp_path: Path) -> None:
    project = project_with("logistic_regression", tmp_path / "project")
    set_params(project, NO_EXPECTATIONS)
    run_stages(project, *STAGES)
    splits = rows_of(project, "breast_cancer", "diagnosis")
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    x, y = splits["train"]
    reference.fit(x.to_numpy(), y.to_numpy())
    x, y = splits["test"]
    expected = reference.score(x.to_numpy(), y.to_numpy())
    accuracy = read_json(project.path / "data/evaluate/metrics.json")["accuracy"]
    assert (accuracy - expected) * y.len() >= -1.001
    predictions = pl.read_parquet(project.path / "data/evaluate/predictions.parquet")
    assert predictions["target"].to_list() == y.to_list()
    differ = (predictions["prediction"].to_numpy() != reference.predict(x.to_numpy())).sum()
    assert differ <= 2


@pytest.mark.soak
def test_the_digits_network_is_right_in_98_of_100(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    project = copy_project(tmp_path / "project")
    accuracies = []
    for seed in SEEDS:
        # As committed, but for which rows go where.
        set_params(project, {"prepare.split.seed": seed, **NO_EXPECTATIONS})
        run_stages(project, *STAGES)
        accuracies.append(read_json(project.path / "data/evaluate/metrics.json")["accuracy"])
    assert len(set(accuracies)) > 1
    assert statistics.mean(accuracies) >= 0.980, accuracies
