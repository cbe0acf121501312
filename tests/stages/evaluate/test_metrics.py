"""Metrics against their formulas, those that are not defined, gates."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_curve

import stages.zoo.metrics
from stages.common.errors import UserError
from stages.common.files import read_json, rounded
from stages.evaluate.measure.metrics import (
    check_defined,
    compute_metrics,
    less_is_better,
    metrics_of,
)
from stages.evaluate.params import EvaluateParams, GatedEvaluateParams
from tests.conftest import ROOT
from tests.stages.evaluate.measured import (
    OF_TWO,
    REGRESSION,
    classification_by_hand,
    guesses,
    names_of,
    regression_by_hand,
)
from tests.support.samples import mixed_table, run_stages, set_params, small_project


@pytest.mark.parametrize(("name", "num_classes"), [(n, k) for k in (2, 4) for n in names_of(k)])
def test_a_classification_metric_is_its_formula(name: str, num_classes: int) -> None:
    target, probabilities = guesses(num_classes)
    found = compute_metrics([name], "classification", target, probabilities)
    expected = classification_by_hand(target, probabilities)
    assert found[name] == pytest.approx(expected[name], rel=1e-6)
    assert 0.05 < found[name] < 2


@pytest.mark.parametrize("name", REGRESSION)
def test_a_regression_metric_is_its_formula(name: str) -> None:
    random = np.random.default_rng(0)
    values = random.normal(50, 10, 80)
    predicted = values + random.normal(1, 4, 80)
    found = compute_metrics([name], "regression", values, predicted)
    assert found[name] == pytest.approx(regression_by_hand(values, predicted)[name], rel=1e-6)


def test_metrics_come_in_the_order_in_which_they_are_named() -> None:
    names = ["log_loss", "accuracy", "brier"]
    found = compute_metrics(names, "classification", *guesses(3))
    assert list(found) == names
    # Seven digits, so that the last bits of a sum are no difference between two machines.
    assert all(value == rounded(value) for value in found.values())


def test_a_metric_of_the_second_of_two_classes_is_refused_for_more() -> None:
    names = ["accuracy", "f1", "recall"]
    with pytest.raises(UserError, match="second of two classes; the target has 3") as caught:
        compute_metrics(names, "classification", *guesses(3))
    first, second = caught.value.problems
    assert (first.key, first.allowed) == (
        "evaluate.metrics.1",
        ("f1_micro", "f1_macro", "f1_weighted"),
    )
    assert (second.key, second.allowed) == ("evaluate.metrics.2", ("recall_macro",))
    # One of one's own says so itself, with its line.
    with pytest.raises(UserError, match="ks is for two classes, and there are 3") as caught:
        compute_metrics(["ks"], "classification", *guesses(3))
    assert caught.value.problems[0].file == "stages/zoo/metrics.py"
    assert {*names_of(2)} - {*names_of(3)} == OF_TWO


def test_metrics_of_ones_own_are_those_of_scikit_learn() -> None:
    target, probabilities = guesses(2)
    false, true, _ = roc_curve(target, probabilities[:, 1])
    found = compute_metrics(["ks"], "classification", target, probabilities)
    assert found["ks"] == pytest.approx((true - false).max(), rel=1e-6)
    values = np.random.default_rng(0).normal(50, 10, 80)
    found = compute_metrics(["wape", "mae"], "regression", values, values + 1)
    assert found["wape"] == pytest.approx(found["mae"] / np.abs(values).mean(), rel=1e-6)
    assert less_is_better("wape")
    assert not less_is_better("ks")


MISTAKES = {
    "mine(target, guess)": "the second argument of the metric 'mine' must be classes, prob",
    "accuracy(target, classes)": "there is a metric 'accuracy' already",
    "mine(target, classes, other)": "the metric 'mine' fails: TypeError",
    "mine(target, probabilities): return 1 / 0 #": "the metric 'mine' fails: ZeroDivisionError",
    "mine(target, classes, sample_weight=None): return 'a' #": "fails: ValueError",
}


@pytest.mark.parametrize("head", MISTAKES)
def test_a_mistake_in_a_metric_of_ones_own_is_told(
    head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = add_metric(head, "0.5", monkeypatch)
    with pytest.raises(UserError, match=re.escape(MISTAKES[head])):
        compute_metrics([name], "classification", *guesses(2))


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_metric_of_ones_own_that_is_no_finite_number_is_told_at_its_line(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = add_metric("mine(target, classes)", f"float('{value}')", monkeypatch)
    found = compute_metrics(["accuracy", name], "classification", *guesses(2))
    with pytest.raises(UserError, match=f"the metric 'mine' gives {value} on the test") as caught:
        check_defined([found])
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("stages/zoo/metrics.py", 1)


def add_metric(head: str, value: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Add a metric to those of one's own, as from their file; its name."""
    space: dict[str, Any] = {"__name__": stages.zoo.metrics.__name__}
    exec(f"def {head}: return {value}", space)
    name = head.partition("(")[0]
    monkeypatch.setattr(stages.zoo.metrics, name, space[name], raising=False)
    file = str(ROOT / "stages/zoo/metrics.py")
    code = space[name].__code__.replace(co_filename=file)
    monkeypatch.setattr(space[name], "__code__", code)
    monkeypatch.chdir(ROOT)
    return name


def test_a_metric_that_is_infinite_is_not_said_to_want_rows() -> None:
    with pytest.raises(UserError, match="mape is inf on these test rows, and must be a finite"):
        check_defined([{"mape": math.inf}])


def test_what_less_is_better_of_is_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.zoo.metrics, "LESS_IS_BETTER", ("wape", "wap"))
    with pytest.raises(UserError, match="LESS_IS_BETTER names 'wap', and there is no such"):
        less_is_better("wape")


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    target = np.array([0, 0, 1, 1, 2, 2])
    probabilities = np.array([[0.8, 0.1, 0.1]] * 2 + [[0.1, 0.8, 0.1]] * 4)
    found = compute_metrics(
        ["precision_macro", "f1_macro"], "classification", target, probabilities
    )
    assert found["precision_macro"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_certainty_that_is_wrong_is_a_finite_loss() -> None:
    found = compute_metrics(
        ["log_loss"], "classification", np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])
    )
    assert 10 < found["log_loss"] < 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("num_classes", "target", "undefined"),
    [
        (2, [1, 1], {"roc_auc", "cohen_kappa"}),
        (3, [0, 1, 1], {"roc_auc"}),
        (3, [2], {"roc_auc", "cohen_kappa"}),
    ],
)
def test_a_metric_that_the_test_rows_do_not_define_is_told(
    num_classes: int, target: list[int], undefined: set[str]
) -> None:
    probabilities = np.eye(num_classes)[target] * 0.5 + 0.5 / num_classes
    names = ["accuracy", "roc_auc", "cohen_kappa", "log_loss"]
    found = compute_metrics(names, "classification", np.array(target), probabilities)
    with pytest.raises(UserError) as error:
        check_defined([found])
    assert {problem.value for problem in error.value.problems} == undefined
    assert error.value.problems[0].key == "evaluate.metrics.1"
    assert "no value on these test rows" in str(error.value)
    # Of any replica.
    with pytest.raises(UserError):
        check_defined([dict.fromkeys(names, 0.5), found])
    check_defined([dict.fromkeys(names, 0.5)])


def test_a_test_split_of_one_row_has_no_r2(tmp_path: Path) -> None:
    table = mixed_table(30).with_columns(y=pl.col("id") * 0.5)
    changes = {
        "prepare.key": "id",
        "prepare.split.test": 0.03,
        "train.loss": {"name": "MSELoss"},
        "evaluate.metrics": ["max_error", "r2"],
        "evaluate.coverage": None,
    }
    project = small_project(tmp_path, table, changes)
    run_stages(project, "prepare", "build", "tune", "train")
    said = project.run("python", "-m", "stages.evaluate", ok=False).stderr
    assert "r2 has no value" in said
    assert "Traceback" not in said
    set_params(project, {"evaluate.metrics": ["max_error"]})
    run_stages(project, "evaluate")
    assert list(read_json(project.path / "data/evaluate/metrics.json")) == ["max_error"]


@pytest.mark.parametrize(
    ("task", "name", "meant"),
    [
        ("classification", "acuracy", "accuracy"),
        ("classification", "f2", None),
        ("classification", "rmse", None),
        ("regression", "RMSE", "rmse"),
        ("regression", "accuracy", None),
    ],
)
def test_an_unknown_metric_is_told_with_those_there_are(
    task: str, name: str, meant: str | None
) -> None:
    known = metrics_of(task)
    first = next(iter(known))
    with pytest.raises(UserError) as caught:
        compute_metrics([first, name], task, *guesses(2))
    (problem,) = caught.value.problems
    assert problem.key == "evaluate.metrics.1"
    assert problem.value == name
    assert problem.allowed == tuple(known)
    if meant is not None:
        assert problem.suggestion == meant


def test_all_unknown_metrics_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        compute_metrics(["accuracy", "x", "y"], "classification", *guesses(2))
    assert [p.key for p in caught.value.problems] == ["evaluate.metrics.1", "evaluate.metrics.2"]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"metrics": [], "gates": {}}, "at least 1 item"),
        (
            {"metrics": ["accuracy"], "gates": {"accuracy": {}}},
            "a minimum, a maximum or not_worse_by",
        ),
        ({"metrics": ["accuracy"], "gates": {"accuracy": {"min": 1.0}}}, "min"),
    ],
)
def test_a_gate_has_a_bound(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        GatedEvaluateParams.model_validate(section)


def test_the_stage_takes_no_gates() -> None:
    # They judge a run; were they part of what the stage reads, a gate would rerun it.
    assert set(EvaluateParams.model_fields) == {"metrics", "slices", "coverage"}
