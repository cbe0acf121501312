"""Questions that metrics on test rows raise: no better than a constant, too little covered."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.evaluate.measure.baseline import ask_at_constant, measure_constant
from stages.evaluate.measure.bootstrap import Interval
from stages.evaluate.measure.coverage import Covered, ask_at_coverage
from stages.evaluate.measure.predictions import Classified
from stages.evaluate.measure.questions import Judged, ask_below_zero, find_questions
from stages.features.schema import Moments
from stages.features.target_scale import to_scale, to_units
from tests.support.samples import run_stages, small_project

CODES = np.repeat([0, 1, 1], 20)
VALUES = np.arange(60.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("accuracy", 2 / 3), ("roc_auc", 0.5), ("log_loss", 0.6365), ("ece", None), ("own", None)],
)
def test_a_constant_says_the_most_frequent_class(name: str, expected: float | None) -> None:
    found = measure_constant(name, CODES, CODES, 2)
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-4))


@pytest.mark.parametrize(("name", "expected"), [("r2", 0.0), ("mae", 15.0), ("rmse", 17.318)])
def test_a_constant_says_the_mean(name: str, expected: float) -> None:
    found = measure_constant(name, VALUES, VALUES, None)
    assert found == pytest.approx(expected, abs=1e-3)


def test_few_rows_may_have_had_bad_luck() -> None:
    assert measure_constant("accuracy", CODES, CODES[:49], 2) is None


@pytest.mark.parametrize(
    ("name", "value", "asks"),
    [("accuracy", 0.7, False), ("accuracy", 0.6, True), ("rmse", 0.7, True), ("rmse", 0.5, False)],
)
def test_it_is_asked_where_a_constant_is_as_good(name: str, value: float, *, asks: bool) -> None:
    task = "regression" if name == "rmse" else "classification"
    assert (ask_at_constant(name, task, value, 0.6) is not None) == asks


@pytest.mark.parametrize(
    ("share", "num_validation", "asks"),
    # 5,000 test rows tell much, 150 that validate little.
    [(0.86, 5000, True), (0.86, 150, False), (0.82, 150, True), (0.95, 5000, False)],
)
def test_it_is_asked_where_luck_does_not_explain_what_is_covered(
    share: float, num_validation: int, *, asks: bool
) -> None:
    covered = Covered(Interval(share, None, None, "wilson"), "interval_width", 3.0)
    assert (ask_at_coverage(covered, 0.9, 5000, num_validation) is not None) == asks


@pytest.mark.parametrize(
    ("lowest", "num_below", "asks"), [(0.0, 3, True), (-1.0, 3, False), (0.0, 0, False)]
)
def test_it_is_asked_where_amounts_are_below_zero(
    lowest: float, num_below: int, *, asks: bool
) -> None:
    predicted = np.where(np.arange(60) < num_below, -0.5, 2.0)
    values = VALUES + lowest
    # As prepare keeps them and evaluate reads them: a 0 is no longer one.
    moments = Moments(mean=float(values.mean()), deviation=float(values.std()))
    kept = to_units(to_scale(values, moments).astype(np.float32), moments)
    assert (ask_below_zero(kept, predicted) is not None) == asks


def test_a_class_without_a_train_row_is_none_that_a_constant_says() -> None:
    for name in ("log_loss", "brier", "f1_macro", "accuracy"):
        assert measure_constant(name, CODES % 2, np.arange(60) % 3, 3) is not None


@pytest.mark.parametrize("changes", [{"is_tilted": True}, {}])
def test_tilted_probabilities_are_not_held_to_a_constant(changes: dict[str, bool]) -> None:
    predicted = Classified(CODES * 0, np.full((60, 2), 0.5))
    told = {"is_tilted": False, "is_transformed": False, **changes}
    judged = Judged("accuracy", 1 / 3, CODES, CODES, predicted, 2, None, **told)
    assert len(list(find_questions(judged, None, None, 60, None))) == (not changes)


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
