"""Questions that metrics on test rows raise: no better than a constant, too little covered."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.evaluate.measure.baseline import ask_at_constant, measure_constant
from stages.evaluate.measure.bootstrap import Interval
from stages.evaluate.measure.coverage import Covered, ask_at_coverage
from stages.evaluate.measure.questions import ask_below_zero
from tests.support.samples import run_stages, small_project

CODES = np.repeat([0, 1, 1], 20)
VALUES = np.arange(60.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("accuracy", 2 / 3), ("roc_auc", 0.5), ("log_loss", 0.6365), ("ece", None), ("own", None)],
)
def test_a_constant_says_the_most_frequent_class(name: str, expected: float | None) -> None:
    found = measure_constant(name, "classification", CODES, CODES)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-4))


@pytest.mark.parametrize(("name", "expected"), [("r2", 0.0), ("mae", 15.0), ("rmse", 17.318)])
def test_a_constant_says_the_mean(name: str, expected: float) -> None:
    found = measure_constant(name, "regression", VALUES, VALUES)
    assert found == pytest.approx(expected, abs=1e-3)


def test_few_rows_may_have_had_bad_luck() -> None:
    assert measure_constant("accuracy", "classification", CODES, CODES[:49]) is None


@pytest.mark.parametrize(
    ("name", "value", "asks"),
    [("accuracy", 0.7, False), ("accuracy", 0.6, True), ("rmse", 0.7, True), ("rmse", 0.5, False)],
)
def test_it_is_asked_where_a_constant_is_as_good(name: str, value: float, *, asks: bool) -> None:
    task = "regression" if name == "rmse" else "classification"
    assert (ask_at_constant(name, task, value, 0.6) is not None) == asks


@pytest.mark.parametrize(("high", "asks"), [(0.89, True), (0.91, False), (None, False)])
def test_it_is_asked_where_surely_too_little_is_covered(high: float | None, *, asks: bool) -> None:
    covered = Covered(Interval(0.85, 0.8, high, "wilson"), "interval_width", 3.0)
    assert (ask_at_coverage(covered, 0.9) is not None) == asks


@pytest.mark.parametrize(
    ("lowest", "num_below", "asks"), [(0.0, 3, True), (-1.0, 3, False), (0.0, 0, False)]
)
def test_it_is_asked_where_amounts_are_below_zero(
    lowest: float, num_below: int, *, asks: bool
) -> None:
    predicted = np.where(np.arange(60) < num_below, -0.5, 2.0)
    assert (ask_below_zero(VALUES + lowest, predicted) is not None) == asks


def test_evaluate_and_the_card_ask_where_columns_tell_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pl.DataFrame({"x": random.normal(size=400), "y": random.normal(size=400)})
    changes = {
        "evaluate.metrics": ["r2"],
        "train.loss": {"name": "MSELoss"},
        "prepare.key": None,
        "prepare.task": "regression",
    }
    project = small_project(tmp_path / "project", table, changes)
    run_stages(project, "prepare", "build", "tune", "train")
    said = project.run("python", "-m", "stages.evaluate").stdout
    assert "warning  r2 -" in said
    assert "which the mean of the train rows has, said of each row" in said
    assert "is no better than" in (project.path / "data/evaluate/card.md").read_text()
