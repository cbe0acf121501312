"""A training that ended: learned, or no better than a guess; what stands out in its history."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.doctor.checks import training
from pipeline.doctor.finding import Options
from pipeline.doctor.history import Guess, find_guess, is_of_now, judge, rows_at_once
from stages.common.files import read_json, write_json
from tests.conftest import Project
from tests.support.samples import mixed_table, ready_to_train, run_stages, set_params

GUESS = Guess(0.7, "the most frequent class", luck=0.05)
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
        (rows([1.0, 0.9], accuracy=0.74), ["the model predicts the same for every row"]),
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
    guess = Guess(5.05, "the mean")
    assert [s.cause for s in judge(history, guess)] == ["the model predicts the same for every row"]
    assert list(judge(history, Guess(9.0, "the mean"))) == []


def test_a_history_without_losses_is_judged_by_the_metric() -> None:
    history = rows([1.0, 0.9, 1.4, 1.6], accuracy=0.74)
    for row in history:
        del row["train_loss"], row["validation_loss"]
    (sign,) = judge(history, GUESS)
    assert sign.cause == "the model predicts the same for every row"


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


def test_the_guess_of_a_value_is_the_mean_in_its_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, target in (("train", [0.0, 0.0]), ("validation", [1.0, -1.0])):
        Path(f"data/prepare/{split}").mkdir(parents=True)
        np.save(f"data/prepare/{split}/target.npy", np.array(target, np.float32))
    statistics = {"target": {"mean": 5.0, "deviation": 3.0}}
    write_json(Path("data/prepare/statistics.json"), statistics)
    assert find_guess().metric == pytest.approx(3.0)


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
