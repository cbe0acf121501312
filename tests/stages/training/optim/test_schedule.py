"""Schedules against torch's own and against formulas."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from stages.common.errors import UserError
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.optim.preflight import check_names
from stages.training.optim.registry import allowed
from stages.training.state import State
from tests.support.samples import classification, train_params
from tests.support.training.models import model, run

# What a schedule has no default for.
REQUIRED: dict[str, dict[str, Any]] = {
    "CyclicLR": {"base_lr": 0.01, "step_size_up": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "ExponentialLR": {"gamma": 0.5},
    "MultiStepLR": {"milestones": [1, 3]},
    "StepLR": {"step_size": 2},
}


@pytest.mark.parametrize(
    "name", [name for name in allowed("schedule") if hasattr(lr_scheduler, name)]
)
def test_every_schedule_moves_the_learning_rate_as_torch_does(name: str) -> None:
    num_epochs, steps = 6, 4
    data = classification(num_rows=50)
    arguments = dict(REQUIRED.get(name, {}))
    if name == "ReduceLROnPlateau":
        arguments["patience"] = 0
    params = train_params(
        epochs=num_epochs,
        optimizer={"name": "SGD", "lr": 0.1},
        schedule={"name": name, **arguments},
        early_stopping={"metric": "accuracy", "patience": None},
    )
    check_names(params, "classification")
    result = run(model(), data, params)

    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    filled: dict[str, dict[str, Any]] = {
        "CosineAnnealingLR": {"T_max": num_epochs},
        "OneCycleLR": {"max_lr": 0.1, "total_steps": num_epochs * steps},
        "CyclicLR": {"max_lr": 0.1},
        "ReduceLROnPlateau": {"mode": "max"},
    }
    schedule_class = getattr(torch.optim.lr_scheduler, name)
    schedule = schedule_class(optimizer, **arguments, **filled.get(name, {}))
    expected = []
    for epoch in result.history:
        expected.append(optimizer.param_groups[0]["lr"])
        for _ in range(steps):
            optimizer.step()
            if name in ("OneCycleLR", "CyclicLR"):
                schedule.step()
        if name == "ReduceLROnPlateau":
            schedule.step(epoch.metric)
        elif name not in ("OneCycleLR", "CyclicLR"):
            schedule.step()
    assert [epoch.learning_rate for epoch in result.history] == expected
    assert len(set(expected)) > 1


def coslog4(share: float) -> float:
    return (1 - math.cos(2 * math.pi * math.log2(1 + 15 * share))) / 2


def flat_cos(share: float) -> float:
    return 1.0 if share < 0.5 else (1 + math.cos(math.pi * (2 * share - 1))) / 2


@pytest.mark.parametrize("factor", [coslog4, flat_cos], ids=lambda each: each.__name__)
def test_a_schedule_by_the_share_of_the_steps_is_its_formula(
    factor: Callable[[float], float],
) -> None:
    rates: list[float] = []
    params = train_params(
        epochs=3,
        batch_size=10,
        optimizer={"name": "SGD", "lr": 0.2},
        schedule={"name": factor.__name__},
    )
    check_names(params, "classification")

    def note(state: State) -> None:
        rates.append(state.optimizer.param_groups[0]["lr"])

    data = classification(num_rows=50)
    train(model(), data, params, 0, World(), lambda *_: None, on_step_end=note)
    # Noted after a step is the rate of the next; after the last of an epoch, twice.
    steps = [rate for number, rate in enumerate(rates) if number % 6 != 5]
    expected = [0.2 * factor(step / 15) for step in range(1, 16)]
    assert steps[: len(expected)] == pytest.approx(expected)


def test_warmup_cosine_rises_in_a_line_and_falls_along_a_cosine() -> None:
    rates: list[float] = []
    network = model()

    def note(state: State) -> None:
        rates.append(state.optimizer.param_groups[0]["lr"])

    params = train_params(
        epochs=5,
        batch_size=10,
        optimizer={"name": "SGD", "lr": 0.2},
        schedule={"name": "warmup_cosine", "warmup": 0.16, "final": 0.1},
    )
    check_names(params, "classification")
    history = train(
        network, classification(num_rows=50), params, 0, World(), lambda *_: None, on_step_end=note
    ).history
    # Noted after a step is the rate of the next; after the last of an epoch, twice.
    steps = [0.2 / 4] + [rate for number, rate in enumerate(rates) if number % 6 != 5]
    assert steps[:5] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])
    fall = [0.02 + 0.18 * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(21)]
    assert steps[4:25] == pytest.approx(fall)
    assert [epoch.learning_rate for epoch in history] == pytest.approx(steps[0:25:5])


def test_a_cycle_shorter_than_the_training_is_an_error() -> None:
    params = train_params(schedule={"name": "OneCycleLR", "total_steps": 11})
    with pytest.raises(UserError, match="the training has 12 steps"):
        run(model(), classification(), params)


def test_a_plateau_is_one_of_the_metric_that_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    params = train_params(
        epochs=5,
        schedule={"name": "ReduceLROnPlateau", "patience": 0, "factor": 0.5},
        early_stopping={"metric": "accuracy", "patience": None},
    )
    measured = iter([(1.0, 0.1), (1.0, 0.2), (1.0, 0.3), (1.0, 0.3), (1.0, 0.4)])
    monkeypatch.setattr("stages.training.loop.validate", lambda *_: next(measured))
    history = run(model(), classification(), params).history
    # Accuracy is better when it is more; it was no better once, in the fourth epoch.
    assert [epoch.learning_rate for epoch in history] == [0.1, 0.1, 0.1, 0.1, 0.05]
