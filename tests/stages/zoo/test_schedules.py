"""Schedules of one's own, in `stages/zoo/schedules.py`."""

import pytest
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

import stages.zoo.schedules
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.optim.preflight import check_names
from stages.training.optim.registry import allowed
from tests.support.samples import Linear, classification, train_params


@pytest.mark.parametrize(("members", "after_an_epoch"), [({}, 1), ({"moves_by_step": True}, 3)])
def test_a_schedule_of_ones_own_says_whether_it_moves_with_every_step(
    members: dict[str, object], after_an_epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_lr(self: LRScheduler) -> list[float]:
        return [rate * 0.5**self.last_epoch for rate in self.base_lrs]

    home = {"__module__": stages.zoo.schedules.__name__, "get_lr": get_lr}
    halving = type("halving", (LRScheduler,), home | members)
    monkeypatch.setattr(stages.zoo.schedules, "halving", halving, raising=False)
    # Three steps an epoch.
    params = train_params(
        epochs=3,
        batch_size=20,
        optimizer={"name": "SGD", "lr": 0.2},
        schedule={"name": "halving"},
    )
    check_names(params, "classification")
    result = train(Linear(), classification(50), params, 0, World(), lambda *_: None)
    rates = [epoch.learning_rate for epoch in result.history]
    assert rates == [0.2 * 0.5 ** (after_an_epoch * number) for number in range(3)]


def test_what_its_file_imports_is_none_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.zoo.schedules, "OneCycleLR", OneCycleLR, raising=False)
    assert allowed("schedule")["OneCycleLR"] is OneCycleLR
