"""A training that ended: what stands out in its history, and whether it has learned."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.doctor.cause import find_cause
from pipeline.doctor.checks import training
from pipeline.doctor.finding import Options, wrong
from pipeline.doctor.guess import Guess, find_guess
from pipeline.doctor.history import is_of_now, judge, rows_at_once
from stages.common.files import read_json, write_json
from tests.conftest import Project
from tests.support.samples import mixed_table, ready_to_train, run_stages, set_params
from tests.support.tables import faint_table, rare_table

GUESS = Guess(0.7, "the most frequent class", luck=0.05, loss=0.61, loss_luck=0.02)
SAME = "the model predicts the same for every row"
HIDDEN = "a metric that does not show what was learned"
Rows = list[dict[str, float]]


def rows(losses: list[float], accuracy: float = 0.9, **values: float) -> Rows:
    """Epochs with these losses of validation; that of training falls."""
    made: dict[str, Any] = {"gradient_norm": 1.0, "validation_accuracy": accuracy, **values}
    return [
        {"epoch": i, "train_loss": 1 / i, "validation_loss": loss, **made}
        for i, loss in enumerate(losses, start=1)
    ]


@pytest.mark.parametrize(
    ("history", "causes"),
    [
        (rows([1.0, 0.8, 0.7, 0.8]), []),
        (rows([1.0, 0.9], accuracy=0.74), [SAME]),
        (rows([1.0, 0.6], accuracy=0.74), [SAME]),
        # The loss is that of no answer which is the same for all rows.
        (rows([1.0, 0.5], accuracy=0.7), [HIDDEN]),
        (rows([1.0, 0.9], gradient_norm=4e3), ["gradients that explode"]),
        (rows([1.0, 0.9], skipped_steps=2), ["the loss is not finite"]),
        (rows([0.5, 0.7, 0.9, 1.2]), ["the rows are learned by heart"]),
        # Lowest halfway: that is what early stopping is for.
        (rows([0.9, 0.5, 0.7, 1.2]), []),
    ],
)
def test_what_stands_out(history: Rows, causes: list[str]) -> None:
    assert [sign.cause for sign in judge(history, GUESS)] == causes


def test_an_error_is_better_where_it_is_smaller() -> None:
    history = [
        {"train_loss": 1.0, "validation_loss": 1.0, "validation_rmse": 5.0, "gradient_norm": 1.0}
    ]
    guess = Guess(5.05, "the mean", luck=0.1, loss=1.01, loss_luck=0.04)
    (sign,) = judge(history, guess)
    assert (sign.cause, sign.fails) == (SAME, True)
    assert list(judge(history, Guess(9.0, "the mean", luck=0.1))) == []


def test_a_loss_that_can_not_be_compared_is_measured_and_not_called_wrong() -> None:
    (sign,) = judge(rows([1.0, 0.9], accuracy=0.74), Guess(0.7, "the most frequent class", 0.05))
    assert (sign.cause, sign.fails) == (SAME, False)
    assert sign.probes == ("learning", "layers", "labels")


def test_the_order_of_scores_tells_of_a_model_that_is_too_sure_of_itself() -> None:
    falling = rows([2.0, 1.9], accuracy=0.7)
    (sign,) = judge(falling, replace(GUESS, order=8.0))
    assert (sign.cause, sign.fails, sign.probes) == (HIDDEN, False, ())
    assert "the order of its scores goes with the targets (by 8 of its errors" in sign.what
    (sign,) = judge(falling, replace(GUESS, order=2.0))
    assert (sign.cause, sign.fails) == (SAME, True)
    # Weights that have not moved have an order by luck.
    still = [{**row, "train_loss": 1.0} for row in falling]
    (sign,) = judge(still, replace(GUESS, order=8.0))
    assert (sign.cause, sign.fails) == (SAME, True)
    # Of a loss that is not known too.
    (sign,) = judge(falling, replace(GUESS, loss=None, order=8.0))
    assert sign.cause == HIDDEN


LINEAR = {"build.model": {"name": "linear"}, "train.batch_size": 128, "train.epochs": 8}
HEALTHY = {
    "rare": (rare_table(3000), {}),
    "balanced": (rare_table(3000), {"train.class_weights": "balanced"}),
    "folds": (rare_table(2000), {"train.folds": 3, "prepare.weight": "heavy"}),
    "faint": (faint_table(4000), {"train.loss": {"name": "MSELoss"}}),
    "by its median": (faint_table(4000), {"train.loss": {"name": "L1Loss"}, "train.folds": 2}),
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_a_training_whose_metric_hardly_moves_is_not_called_wrong(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, changes = HEALTHY[kind]
    lr = {"train.optimizer.lr": 0.2}
    project = ready_to_train(tmp_path / "p", {**LINEAR, **lr, **changes}, table)
    run_stages(project, "train")
    monkeypatch.chdir(project.path)
    asked: list[str] = []
    monkeypatch.setattr(training, "measure", lambda probes: asked.extend(probes) or iter(()))
    (found,) = training.check(Options())
    assert (found.level in ("ok", "note"), asked) == (True, []), found.what
    if kind in ("rare", "balanced", "folds"):
        assert found.what.startswith(f"{HIDDEN}: validation_accuracy is 0.")


def test_what_a_training_has_overcome_is_no_more_than_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = ready_to_train(tmp_path / "p", {"train.optimizer.lr": 0.05}, mixed_table(300))
    run_stages(project, "train")
    monkeypatch.chdir(project.path)
    found = [
        wrong(f"{name}; measured: so it is", "why")
        for name in (*training.OVERCOME, "a label out of range")
    ]
    monkeypatch.setattr(training, "measure", lambda _: iter(found))
    learned, *measured = training.check(Options(measure="all"))
    assert learned.what.startswith("the last one that ended has learned")
    assert [each.level for each in measured] == ["note"] * len(training.OVERCOME) + ["wrong"]
    assert measured[0].what.endswith("\n  the last training has learned all the same")
    # Of other parameters the last training says nothing.
    monkeypatch.setattr(training, "is_of_now", lambda: False)
    assert {each.level for each in training.check(Options(measure="all"))} == {"ok", "wrong"}
    for name in training.OVERCOME:
        assert find_cause(name).name == name


@pytest.mark.parametrize("changes", [{"train.folds": 3, "prepare.weight": "heavy"}, {}])
def test_a_training_that_moves_nothing_is_called_wrong_of_rare_classes_too(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lr = {"train.optimizer.lr": 1e-9}
    project = ready_to_train(tmp_path / "p", {**LINEAR, **lr, **changes}, rare_table(2000))
    run_stages(project, "train")
    monkeypatch.chdir(project.path)
    (found,) = training.check(Options(measure="none"))
    assert found.level == "wrong"


def test_a_history_without_losses_is_judged_by_the_metric() -> None:
    history = rows([1.0, 0.9, 1.4, 1.6], accuracy=0.74)
    for row in history:
        del row["train_loss"], row["validation_loss"]
    (sign,) = judge(history, GUESS)
    assert (sign.cause, sign.fails) == (SAME, False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A training at a rate that moves nothing."""
    changes = {"train.optimizer.lr": 1e-9, "train.epochs": 2}
    project = ready_to_train(tmp_path_factory.mktemp("trained") / "p", changes, mixed_table(300))
    run_stages(project, "train")
    return project


def test_a_training_that_has_learned_nothing_is_told(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.path)
    validation = np.load("data/prepare/validation/target.npy")
    guess = find_guess()
    assert guess.metric == pytest.approx(max((validation == c).mean() for c in (0, 1)), abs=0.2)
    asked: list[str] = []
    monkeypatch.setattr(training, "measure", lambda probes: asked.extend(probes) or iter(()))
    (found,) = training.check(Options())
    assert found.level == "wrong"
    assert found.what.startswith("the model predicts the same for every row: validation_accuracy")
    assert found.mend[-1].endswith(
        "docs/troubleshooting.md#the-model-predicts-the-same-for-every-row"
    )
    assert asked == ["learning", "layers", "labels"]
    # With the parameters that it was made with; with others it is no more than a note.
    lock = {"stages": {"train": {"params": {"params.yaml": {"train.epochs": 2}}}}}
    write_json(Path("dvc.lock"), lock)
    assert is_of_now()
    lock["stages"]["train"]["params"]["params.yaml"]["train.epochs"] = 3
    write_json(Path("dvc.lock"), lock)
    asked.clear()
    (found,) = training.check(Options())
    assert (found.level, asked) == ("note", [])
    assert "params.yaml has changed since" in found.what
    Path("dvc.lock").unlink()
    # Not measured where it is not wanted, and all of it where it is.
    asked.clear()
    list(training.check(Options(measure="none")))
    assert asked == []
    list(training.check(Options(measure="all")))
    assert len(asked) == 7


def test_rows_that_the_memory_did_not_hold_are_told(
    trained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.path, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    assert rows_at_once() is None
    recipe = read_json(Path("data/train/recipe.json"))
    recipe["train"]["micro_batch_size"] = 4
    write_json(Path("data/train/recipe.json"), recipe)
    assert rows_at_once() == (4, None)
    set_params(Project(tmp_path / "p"), {"train.micro_batch_size": 4})
    assert rows_at_once() is None
