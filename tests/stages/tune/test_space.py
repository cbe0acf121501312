"""Spaces that can not be searched are told before any trial."""

from typing import Any

import pytest

from stages.common.errors import Problem, UserError
from tests.conftest import Project
from tests.stages.tune.conftest import LR, WIDTH, tune
from tests.support.samples import set_params


def problems(project: Project, space: dict[str, Any], sampler: str = "tpe") -> list[Problem]:
    with pytest.raises(UserError) as caught:
        tune(project, 1, sampler, space)
    return caught.value.problems


@pytest.mark.parametrize(
    ("path", "values", "says"),
    [
        ("train.optimizer.lrr", [0.1, 0.2], "did you mean 'lr'?"),
        ("train.optimiser.lr", [0.1, 0.2], "did you mean 'train.optimizer.lr'?"),
        ("train.batch_size.x", [1, 2], "no parameter"),
        ("build.model.widht", [4, 8], "did you mean 'width'?"),
        ("prepare.split.seed", [0, 1], "can't be tuned"),
        ("train.epochs", [3, 4], "tune.epochs"),
        ("build.model.name", ["mlp", "linear"], "can't be tuned"),
        ("train.batch_size", [32, "many"], "can't be 'many'"),
        ("train.batch_size", [32, 0], "can't be 0"),
        ("train.optimizer.name", ["Adam", "AdamWW"], "did you mean 'AdamW'?"),
        ("train.optimizer.lr", [0.1, -0.1], "can't be -0.1"),
        ("train.optimizer.lr", {"low": -0.5, "high": 0.1}, "can't be -0.5"),
        ("train.loss.name", ["CrossEntropyLoss", "NLLLoss"], "compared by this very loss"),
        ("train.loss.label_smoothing", [0.0, 0.1], "compared by this very loss"),
        ("train.early_stopping.metric", ["loss", "accuracy"], "trials are compared by it"),
        ("build.model.width", {"low": 1.5, "high": 8.5}, "can't be 1.5"),
        ("build.model.dropout", {"low": 0.0, "high": 1.0}, "can't be 1.0"),
    ],
)
def test_a_space_that_can_not_be_is_an_error_before_any_trial(
    project: Project, path: str, values: object, says: str
) -> None:
    (found,) = problems(project, {path: values})
    assert found.key == f"tune.space.{path}"
    text = f"{found.message}\ndid you mean '{found.suggestion}'?"
    assert says in text


def test_losses_can_be_tuned_where_another_metric_compares_them(project: Project) -> None:
    set_params(project, {"train.early_stopping": {"metric": "accuracy", "patience": None}})
    (found,) = problems(project, {"train.loss.name": ["CrossEntropyLoss", "MSELoss"]})
    assert found.key == "tune.space.train.loss.name"
    assert "no loss for classification" in found.message


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"low": 2.0, "high": 1.0}, "must be below high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "needs low above 0"),
        ({"low": 0.1}, "missing"),
        ({"low": 0.1, "high": 1.0, "step": 0.1}, "unknown key 'step'"),
        ([0.1], "at least 2 items"),
        (0.1, "a key has a list of values or a range"),
        (None, "a key has a list of values or a range"),
    ],
)
def test_a_range_or_list_that_says_nothing_is_an_error(
    project: Project, values: object, says: str
) -> None:
    (found,) = problems(project, {LR: values})
    assert str(found.key).startswith(f"tune.space.{LR}")
    assert says in found.message


NAME, MOMENTUM = "train.optimizer.name", "train.optimizer.momentum"


@pytest.mark.parametrize(
    ("space", "key", "says"),
    [
        ({MOMENTUM: {"low": 0.1, "high": 0.9, "when": {NAME: "SGD"}}}, "", ""),
        (
            {MOMENTUM: {"values": [0.1, 2.0], "when": {NAME: "Adam"}}, NAME: ["SGD", "Adam"]},
            MOMENTUM,
            "unknown key 'momentum'",
        ),
        (
            {MOMENTUM: {"values": [0.1, 0.9], "when": {NAME: "Rprop"}}, NAME: ["SGD", "Adam"]},
            f"{MOMENTUM}.when.{NAME}",
            "is never 'Rprop' in this space",
        ),
        (
            {MOMENTUM: {"values": [0.1, 0.9], "when": {LR: 0.1}}, LR: {"low": 0.1, "high": 0.2}},
            f"{MOMENTUM}.when.{LR}",
            "a condition needs a list of values",
        ),
        ({WIDTH: {"values": [4, 8], "when": {WIDTH: 4}}}, f"{WIDTH}.when", "its own value"),
        # A mistake in the condition is the condition's, not that of the key which waits for it.
        (
            {LR: {"low": 0.1, "high": 0.2, "when": {"train.optimizer.nme": "Adam"}}},
            f"{LR}.when.train.optimizer.nme",
            "unknown key 'nme'",
        ),
        (
            {LR: {"low": 0.1, "high": 0.2, "when": {"train.optmizer.name": "Adam"}}},
            f"{LR}.when.train.optmizer.name",
            "there is no parameter 'train.optmizer.name'",
        ),
        (
            {LR: {"values": [0.1, 0.2], "when": {WIDTH: 8, NAME: "Adm"}}},
            f"{LR}.when.{NAME}",
            "has no optimizer 'Adm'",
        ),
        (
            {LR: {"low": 0.1, "high": 0.2, "when": {"evaluate.coverage": 0.9}}},
            f"{LR}.when.evaluate.coverage",
            "a key of the model or of the training",
        ),
        # Here the condition is right, and one of the values is not.
        (
            {
                "train.schedule.name": ["CosineAnnealingLR", "StepLR"],
                "train.schedule.step_size": {
                    "values": [3, "three"],
                    "when": {"train.schedule.name": "StepLR"},
                },
            },
            "train.schedule.step_size",
            "three",
        ),
        ({WIDTH: {"values": [4, 8]}}, WIDTH, "without one the list itself stands there: [4, 8]"),
        # A name that can't be without an argument may be tried together with it.
        (
            {
                "train.schedule.name": ["CosineAnnealingLR", "StepLR"],
                "train.schedule.step_size": {
                    "low": 1,
                    "high": 3,
                    "when": {"train.schedule.name": "StepLR"},
                },
            },
            "",
            "",
        ),
    ],
)
def test_a_condition_is_one_that_may_hold(
    project: Project, space: dict[str, Any], key: str, says: str
) -> None:
    set_params(project, {"tune.epochs": 1})
    if not key:
        return tune(project, 1, "tpe", space)
    (found,) = problems(project, space)
    assert found.key is not None
    assert found.key.endswith(key)
    assert says in found.message
    return None


def test_a_grid_takes_lists_alone(project: Project) -> None:
    (found,) = problems(project, {LR: {"low": 0.1, "high": 1.0}, WIDTH: [3, 4]}, "grid")
    assert found.key == f"tune.space.{LR}"
    assert "a grid needs a list" in found.message


def test_all_mistakes_of_a_space_are_told_at_once(project: Project) -> None:
    found = problems(project, {"train.epochs": [1, 2], "train.x": [1, 2], LR: [0.1, 0.2]})
    assert [p.key for p in found] == ["tune.space.train.epochs", "tune.space.train.x"]
