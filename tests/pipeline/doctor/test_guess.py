"""The guess that a training must beat: the least loss of one answer, and the order of scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.doctor.guess import compare_order, find_guess
from stages.common.files import write_json
from stages.training.optim.class_weights import weigh_classes
from stages.training.optim.loss import make_loss
from tests.support.samples import train_params


def prepare_rows(task: str, loss: dict[str, Any], weights: Any = None) -> tuple[Tensor, Tensor]:
    """The files of a training with this loss, in this folder; targets of train and validation."""
    random = np.random.default_rng(3)
    made = []
    for split, num_rows in (("train", 300), ("validation", 90)):
        codes = random.choice(3, num_rows, p=[0.9, 0.07, 0.03])
        values = random.gumbel(size=num_rows).astype(np.float32)
        target = codes if task == "classification" else values
        Path(f"data/prepare/{split}").mkdir(parents=True)
        np.save(f"data/prepare/{split}/target.npy", target)
        made.append(torch.from_numpy(target))
    classes = ["a", "b", "c"] if task == "classification" else None
    write_json(Path("data/prepare/schema.json"), {"target": {"classes": classes}})
    write_json(Path("data/prepare/statistics.json"), {})
    Path("data/train").mkdir()
    train = {"loss": loss, "class_weights": weights}
    write_json(Path("data/train/recipe.json"), {"train": train})
    return made[0], made[1]


def test_the_order_is_that_of_each_class_and_of_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    target = random.choice(3, 2000, p=[0.96, 0.02, 0.02])
    assert compare_order(target) == 0.0
    Path("data/train/validation").mkdir(parents=True)

    def order(scores: Any, target: Any) -> float:
        np.save("data/train/validation/scores.npy", scores)
        return compare_order(target)

    luck = [order(random.normal(size=(2000, 3)), target) for _ in range(40)]
    assert np.abs(luck).max() < 3.5
    assert 0.6 < np.std(luck) < 1.4
    # Far too sure, and never of a rare class.
    scores = random.normal(size=(2000, 3)) + 1.5 * np.eye(3)[target]
    assert order(50 * scores + np.array([400.0, 0.0, 0.0]), target) > 5
    values = random.normal(size=2000)
    assert order((values + 5 * random.normal(size=2000))[:, None], values) > 3
    assert order(-values[:, None], values) < -10
    assert order(np.zeros((2000, 1)), values) == 0.0


@pytest.mark.parametrize("weights", [None, "balanced", {"c": 5.0}])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_shares_is_the_least_that_one_answer_has(
    weights: Any, smoothing: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loss = {"name": "CrossEntropyLoss", "label_smoothing": smoothing}
    train, validation = prepare_rows("classification", loss, weights)
    of_class = None if weights is None else weigh_classes(weights, ["a", "b", "c"], train)
    params = train_params(loss=loss, class_weights=weights)
    loss_fn = make_loss(params, "classification", of_class, 3)
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=200, tolerance_grad=1e-9)

    def least() -> Tensor:
        optimizer.zero_grad()
        found: Tensor = loss_fn(scores.expand(len(validation), 3), validation)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    for _ in range(5):
        optimizer.step(least)  # type: ignore[no-untyped-call]
    assert find_guess().loss == pytest.approx(float(least().detach()), rel=1e-4)


@pytest.mark.parametrize(
    "loss",
    [
        {"name": "MSELoss"},
        {"name": "L1Loss"},
        {"name": "HuberLoss", "delta": 0.7},
        {"name": "SmoothL1Loss", "beta": 0.5},
        {"name": "quantile", "q": 0.9},
    ],
)
def test_the_loss_of_a_value_is_the_least_that_one_value_has(
    loss: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, validation = prepare_rows("regression", loss)
    loss_fn = make_loss(train_params(loss=loss), "regression")
    values = torch.linspace(float(validation.min()), float(validation.max()), 4000)
    least = min(float(loss_fn(value.expand(len(validation)), validation)) for value in values)
    assert find_guess().loss == pytest.approx(least, rel=1e-3)


def test_a_loss_of_ones_own_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_rows("classification", {"name": "focal", "gamma": 2.0})
    assert find_guess().loss is None


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
