"""The stage: predictions of the test rows and their metrics, the same bytes in two places."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.common.files import read_csv, read_json
from tests.conftest import Project
from tests.stages.evaluate.measured import (
    CLASSIFICATION,
    REGRESSION,
    classification_by_hand,
    regression_by_hand,
)
from tests.support.samples import mixed_table, run_stages, small_project


def evaluated(folder: Path, table: pl.DataFrame, changes: dict[str, Any]) -> Project:
    project = small_project(folder, table, {"prepare.key": "id", **changes})
    run_stages(project, "prepare", "build", "tune", "train", "evaluate")
    return project


LEARNING = {
    "evaluate.metrics": list(CLASSIFICATION),
    "train.optimizer": {"name": "Adam", "lr": 0.05},
    "train.epochs": 20,
}


OF_SETS = ("coverage", "set_size")


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return evaluated(tmp_path_factory.mktemp("classified") / "project", mixed_table(), LEARNING)


def test_predictions_are_those_of_the_test_rows(classified: Project) -> None:
    predictions = pl.read_parquet(classified.path / "data/evaluate/predictions.parquet")
    keys = np.load(classified.path / "data/prepare/test/key.npy")
    assert predictions.columns == [
        "id",
        "target",
        "prediction",
        "probability_ill",
        "probability_well",
        "in_set_ill",
        "in_set_well",
    ]
    assert predictions["id"].to_list() == keys.tolist()
    actual = predictions.select("id").join(mixed_table(), on="id", maintain_order="left")
    assert predictions["target"].to_list() == actual["y"].to_list()
    likely = np.where(predictions["probability_ill"] >= 0.5, "ill", "well")
    assert predictions["prediction"].to_list() == likely.tolist()
    assert (likely == actual["y"].to_numpy()).mean() > 0.7


def test_metrics_are_those_of_the_predictions(classified: Project) -> None:
    predictions = pl.read_parquet(classified.path / "data/evaluate/predictions.parquet")
    probabilities = predictions.select("probability_ill", "probability_well").to_numpy()
    target = (predictions["target"] == "well").to_numpy().astype(np.int64)
    metrics = read_json(classified.path / "data/evaluate/metrics.json")
    assert list(metrics) == [*CLASSIFICATION, *OF_SETS]
    in_sets = predictions.select("in_set_ill", "in_set_well").to_numpy()
    by_hand = in_sets[np.arange(len(target)), target].mean()
    assert metrics["coverage"] == pytest.approx(by_hand, rel=1e-6)
    assert metrics["set_size"] == pytest.approx(in_sets.sum(axis=1).mean(), rel=1e-6)
    metrics = {name: value for name, value in metrics.items() if name not in OF_SETS}
    assert metrics == pytest.approx(classification_by_hand(target, probabilities), rel=1e-6)
    found = read_json(classified.path / "data/evaluate/intervals.json")
    assert (found["level"], found["rows"]) == (0.95, len(target))
    share = found["coverage"]
    assert share["low"] < share["value"] <= share["high"]
    assert {name: entry["value"] for name, entry in found["metrics"].items()} == metrics
    for name, entry in found["metrics"].items():
        assert name == "ece" or entry["low"] <= entry["value"] <= entry["high"], name


def test_a_value_is_measured_in_the_targets_units(tmp_path: Path) -> None:
    table = mixed_table().with_columns(y=1000.0 + 50 * pl.col("size").fill_null(10.0))
    project = evaluated(
        tmp_path / "project",
        table,
        {
            "build.model": {"name": "linear"},
            "train.loss": {"name": "MSELoss"},
            "train.optimizer": {"name": "Adam", "lr": 0.1},
            "train.epochs": 20,
            "evaluate.metrics": list(REGRESSION),
        },
    )
    predictions = pl.read_parquet(project.path / "data/evaluate/predictions.parquet")
    assert predictions.columns == ["id", "target", "prediction", "low", "high"]
    inside = predictions["target"].is_between(predictions["low"], predictions["high"])
    actual = predictions.select("id").join(table, on="id", maintain_order="left")["y"].to_numpy()
    # Through a standardised float32 and back.
    np.testing.assert_allclose(predictions["target"], actual, rtol=1e-5)
    metrics = read_json(project.path / "data/evaluate/metrics.json")
    by_hand = regression_by_hand(
        predictions["target"].to_numpy(), predictions["prediction"].to_numpy()
    )
    assert metrics.pop("coverage") == pytest.approx(inside.mean(), rel=1e-6)
    width = metrics.pop("interval_width")
    np.testing.assert_allclose(predictions["high"] - predictions["low"], width, rtol=1e-6)
    assert {name: metrics[name] for name in REGRESSION} == pytest.approx(by_hand, rel=1e-6)
    assert metrics["r2"] > 0.9
    assert read_csv(project.path / "data/evaluate/plots/residuals.csv")


def test_two_evaluations_in_two_places_write_the_same_bytes(
    classified: Project, tmp_path: Path
) -> None:
    other = evaluated(tmp_path / "other" / "place", mixed_table(), LEARNING)
    assert other.outputs() == classified.outputs()
