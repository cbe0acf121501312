"""Samplers: grids, conditions, and which of them a space is searched by."""

from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.config import Overrides
from stages.tune.study import search
from tests.stages.tune.conftest import LR, SPACE, WIDTH
from tests.support.stages.searches import CURRENT, bowl, in_step, run, trials_of, tried, tune_params

NUMBERS: dict[str, Any] = {LR: SPACE[LR]}


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"space": NUMBERS}, "gp"),
        ({"space": SPACE}, "tpe"),
        ({"space": NUMBERS, "trials": 101}, "tpe"),
        ({"space": NUMBERS, "pruner": "halving"}, "tpe"),
        ({"space": {f"{LR}{i}": SPACE[LR] for i in range(9)}}, "tpe"),
    ],
)
def test_the_sampler_is_chosen_by_the_space(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    chosen: str,
) -> None:
    params = tune_params(**{"sampler": "auto", "trials": 1, **changes})
    train = in_step(lambda _overrides, _epoch: 0.0)
    if params.trials == 1:
        assert run(params, tmp_path / "j", train=train).sampler == chosen
        assert f"sampler: {chosen} (" in capsys.readouterr().out
    else:
        from stages.tune.samplers import choose_sampler

        assert choose_sampler(params)[0] == chosen


GRID: dict[str, Any] = {LR: [1e-3, 1e-2, 0.5], WIDTH: [8, 16, 32, 64]}


def test_a_grid_tries_every_point_once(tmp_path: Path) -> None:
    found = run(tune_params(sampler="grid", space=GRID, trials=100, batch=5), tmp_path / "journal")
    points = sorted((values[LR], values[WIDTH]) for values in tried(found.trials))
    # Trial 0 is one of them, and is not trained twice.
    assert points == sorted((lr, width) for lr in GRID[LR] for width in GRID[WIDTH])
    assert found.reason == "no recipe is left in the space after 12 trials"


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_nothing_is_trained_twice_and_a_space_may_be_exhausted(
    tmp_path: Path, sampler: str
) -> None:
    params = tune_params(sampler=sampler, space=GRID, trials=100, batch=5)
    found = run(params, tmp_path / "journal")
    assert len({str(values) for values in tried(found.trials)}) == len(found.trials) == 12
    assert found.reason == "no recipe is left in the space after 12 trials"


def test_a_grid_that_params_yaml_is_no_point_of_is_tried_beside_it(tmp_path: Path) -> None:
    space = {LR: [1e-3, 1e-2], WIDTH: [8, 16]}
    trials = trials_of(tune_params(sampler="grid", space=space, trials=100), tmp_path / "journal")
    assert len(trials) == 5
    assert len({(values[LR], values[WIDTH]) for values in tried(trials)}) == 5


def test_a_grid_that_is_cut_short_is_spread_over_the_space(tmp_path: Path) -> None:
    trials = trials_of(tune_params(sampler="grid", space=GRID, trials=7), tmp_path / "journal")
    assert len(trials) == 7
    assert len({values[LR] for values in tried(trials)}) == 3
    assert len({values[WIDTH] for values in tried(trials)}) >= 3


def test_a_choice_may_be_a_list_or_nothing(tmp_path: Path) -> None:
    space = {"build.model.channels": [[8], [8, 16]], "train.clip_norm": [None, 1.0]}
    params = tune_params(sampler="grid", space=space, trials=9)
    current = {"build.model.channels": [8, 16], "train.clip_norm": None}
    train = in_step(lambda _overrides, _epoch: 0.0)
    trials = trials_of(params, tmp_path / "journal", train=train, current=current)
    assert len({str({**current, **trial.overrides}) for trial in trials}) == len(trials) == 4


MOMENTUM = "train.optimizer.momentum"
NAME = "train.optimizer.name"
CONDITIONAL: dict[str, Any] = {
    MOMENTUM: {"values": [0.0, 0.9], "when": {NAME: "SGD"}},
    NAME: ["SGD", "Adam"],
}


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_key_with_a_condition_is_tried_where_it_holds(tmp_path: Path, sampler: str) -> None:
    params = tune_params(sampler=sampler, space=CONDITIONAL, trials=20, batch=2)
    train = in_step(lambda overrides, _epoch: float(overrides.get(MOMENTUM, 0.5)))
    found = run(params, tmp_path / "journal", train=train, current={NAME: "RMSprop"})
    pairs = {(t.overrides[NAME], t.overrides.get(MOMENTUM)) for t in found.trials[1:]}
    # Adam has no momentum to try, and so is tried once.
    assert pairs == {("SGD", 0.0), ("SGD", 0.9), ("Adam", None)}
    assert len(found.trials) == 4


def test_a_sampler_is_asked_on_one_thread_whatever_the_cores(tmp_path: Path) -> None:
    before, found = torch.get_num_threads(), set[int]()

    def fits(_: Overrides) -> bool:
        found.add(torch.get_num_threads())
        return True

    torch.set_num_threads(2)
    try:
        params = tune_params(trials=3, sampler="random")
        journal, train = tmp_path / "journal", in_step(bowl)
        search(params, CURRENT, "minimize", 0, journal, train, fits=fits)
        assert (found, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)
