"""`prepare.weight`: a row of weight n is n rows, from the source to the metrics."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.features.schema import load_arrays, read_schema
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.rows.weights import describe_weights, find_weights
from tests.conftest import Project
from tests.support.samples import prepare_params, run_stages, small_project

SPLITS = ("train", "validation", "test")
# All rows in one batch, so that the table of copies has no other batches.
SETTINGS: dict[str, Any] = {
    "prepare.key": None,
    "prepare.split": {"seed": 0, "validation": 0.2, "test": 0.2, "column": "part"},
    "prepare.expectations": None,
    "build.model": {"name": "mlp", "width": 4, "layers": 1, "dropout": 0.0},
    "train.epochs": 12,
    "train.batch_size": 1000,
    "train.optimizer": {"name": "SGD", "lr": 0.5, "momentum": 0.5},
    "train.class_weights": "balanced",
    "train.calibration": {"temperature": True, "threshold": "f1"},
    "train.precision": "fp32",
    "evaluate.metrics": ["accuracy", "f1_macro", "log_loss", "brier", "ece", "roc_auc"],
    "evaluate.gates": {},
    "infer.input": None,
}


def weighted_table(num_rows: int = 240) -> pl.DataFrame:
    """Columns whose codes don't depend on how often a row stands there; the last weighs the rows.

    What the heavy rows say is not what the light ones do.
    """
    random = np.random.default_rng(4)
    town, smoker = random.integers(4, size=num_rows), random.random(num_rows) < 0.4
    weight = random.choice([0, 1, 2, 5], num_rows)
    chance = np.where(weight > 1, 0.2 + 0.2 * town, 0.8 - 0.15 * town) + 0.1 * smoker
    return pl.DataFrame(
        {
            "town": np.array(["Oslo", "Bergen", "Tromsø", "Bodø"])[town],
            "smoker": smoker,
            "people": weight,
            "part": np.array(SPLITS)[np.arange(num_rows) % 5 % 3],
            "y": np.where(random.random(num_rows) < chance, "ill", "well"),
        }
    )


def made_of(table: pl.DataFrame, folder: Path, **changes: object) -> Project:
    project = small_project(folder, table, {**SETTINGS, **changes})
    run_stages(project, "prepare", "build", "tune", "train", "evaluate")
    return project


def test_weights_give_what_copies_of_the_rows_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = weighted_table()
    weighted = made_of(table, tmp_path / "weighted", **{"prepare.weight": "people"})
    said = capsys.readouterr().out
    counts = table["people"]
    assert f"0 to 5, {(counts == 0).sum()} of 0, which do not count; the 240 rows tell as" in said
    repeated = table.select(pl.exclude("people").repeat_by("people").explode())
    copies = made_of(repeated, tmp_path / "copies")
    plain = made_of(table.drop("people"), tmp_path / "plain")

    trained, as_copies, unlike = (read_history(each) for each in (weighted, copies, plain))
    np.testing.assert_allclose(trained, as_copies, rtol=2e-4)
    assert np.abs(trained / unlike - 1).max() > 0.02
    for name in ("train/metrics.json", "evaluate/metrics.json", "train/calibration.json"):
        found, expected = (read_json(each.path / "data" / name) for each in (weighted, copies))
        # The worst slice is by its interval, which knows of the copies only as rows.
        shared = {key for key in expected if not key.startswith("worst_slice")}
        assert {key: found[key] for key in shared} == pytest.approx(
            {key: expected[key] for key in shared}, rel=1e-3
        )
    # A row of weight 2 tells less than two rows: the interval is the wider one.
    wide, narrow = (
        read_json(each.path / "data/evaluate/intervals.json")["metrics"]["accuracy"]
        for each in (weighted, copies)
    )
    assert wide["high"] - wide["low"] > 1.2 * (narrow["high"] - narrow["low"])
    for name, value in (("classes.csv", "recall"), ("slices.csv", "accuracy")):
        of_class, of_copies = (
            {row.get("slice", row.get("class")): float(row[value]) for row in read_csv(file)}
            for file in (each.path / "data/evaluate" / name for each in (weighted, copies))
        )
        assert of_class == pytest.approx(of_copies, rel=1e-4)
    for name in ("roc", "precision_recall", "calibration", "calibration_before"):
        one, other = (
            pl.read_csv(each.path / f"data/evaluate/plots/{name}.csv").to_numpy()
            for each in (weighted, copies)
        )
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def read_history(project: Project) -> Any:
    rows = read_csv(project.path / "data/train/history.csv")
    names = ("gradient_norm", "train_loss", "validation_loss", "validation_accuracy")
    return np.array([[float(row[name]) for name in names] for row in rows])


def test_the_weight_is_written_beside_the_target_and_is_no_feature(tmp_path: Path) -> None:
    table = weighted_table(60)
    project = small_project(
        tmp_path / "project", table, {**SETTINGS, "prepare.weight": "people", "prepare.key": None}
    )
    run_stages(project, "prepare")
    prepared = project.path / "data/prepare"
    schema = read_schema(prepared)
    assert schema.weight == "people"
    assert [feature.name for feature in schema.features] == ["town", "smoker"]
    for split in SPLITS:
        arrays = load_arrays(prepared / split)
        assert arrays["weight"].dtype == np.float64
        assert arrays["weight"].tolist() == table["people"][arrays["key"].tolist()].to_list()
    assert pl.read_parquet(prepared / "test_rows.parquet").columns == ["town", "smoker"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.0, None, 2.0, float("inf")], "2 of 4 rows have no weight that is a finite number in "),
        ([1, -2, 3, -0.5], "2 of 4 rows have a negative weight in 'w': the rows 11, 13"),
        ([0.0, 0.0, 0.0, 0.0], "all rows weigh 0 by 'w'"),
        ([1e308, 1e308, 0.0, 1.0], "too large to add up"),
        (["1", "2", "heavy", "3"], "heavy"),
        ([True, False, True, True], "is of type Boolean"),
    ],
)
def test_a_weight_that_is_none_is_told_with_its_rows(values: list[object], says: str) -> None:
    table = pl.DataFrame({"w": values}, strict=False)
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        find_weights(table["w"], np.arange(10, 14))
    assert {problem.key for problem in caught.value.problems} == {"prepare.weight"}


def test_equal_weights_tell_as_much_as_their_rows() -> None:
    table = pl.DataFrame({"w": [0.5] * 8})
    line = describe_weights("w", find_weights(table["w"], np.arange(8)))
    assert line == "weights in 'w': 0.5 to 0.5; the 8 rows tell as much as 8 of equal weight"


def test_a_split_of_which_nothing_counts_is_refused(tmp_path: Path) -> None:
    table = weighted_table(60).with_columns(
        people=pl.when(pl.col("part") == "validation").then(0).otherwise("people")
    )
    project = small_project(tmp_path / "project", table, {**SETTINGS, "prepare.weight": "people"})
    with pytest.raises(UserError, match="all 24 rows of the split 'validation' weigh 0"):
        run_stages(project, "prepare")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"weight": "y"}, "prepare.weight"),
        ({"weight": "peple"}, "prepare.weight"),
        ({"weight": "people", "key": "people"}, "prepare.weight"),
        ({"weight": "people", "columns": {"people": "numeric"}}, "prepare.columns.people"),
    ],
)
def test_a_weight_that_is_something_else_is_refused(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError) as caught:
        find_schema(weighted_table(60), prepare_params(**changes))
    assert key in [problem.key for problem in caught.value.problems]
