"""The search itself, on a function whose lowest point is known."""

import statistics
from pathlib import Path

import pytest

from stages.common.config import MAX_SEED, Overrides
from stages.tune.plots import importances
from stages.tune.study import search
from stages.tune.trials import best_trial
from tests.stages.tune.conftest import LR, SPACE, WIDTH
from tests.support.stages.searches import (
    ALL,
    CURRENT,
    EPOCHS,
    bowl,
    in_step,
    in_turns,
    run,
    space_of,
    trials_of,
    tried,
    tune_params,
)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_trial_zero_is_what_stands_in_the_parameters(tmp_path: Path, sampler: str) -> None:
    trials = trials_of(tune_params(sampler=sampler, trials=3), tmp_path / "journal")
    assert (trials[0].overrides, trials[0].origin) == ({}, "params.yaml")
    assert trials[0].value == pytest.approx(bowl({}, EPOCHS))
    # The sampler learns from it too.
    assert trials[0].suggested == {LR: 0.5, WIDTH: 1}
    assert all(set(trial.overrides) == set(SPACE) for trial in trials[1:])


@pytest.mark.parametrize(
    "current",
    [
        {LR: 5.0, WIDTH: 128},
        {LR: None, WIDTH: None},
        {LR: "fast", WIDTH: [1]},
        {WIDTH: 0.5},
        {},
    ],
)
def test_values_outside_of_the_space_are_trial_zero_all_the_same(
    tmp_path: Path, current: Overrides
) -> None:
    space = {LR: SPACE[LR], WIDTH: {"low": 8, "high": 64}}
    params = tune_params(trials=2, space=space)
    train = in_step(lambda _overrides, _epoch: 0.0)
    trials = trials_of(params, tmp_path / "journal", train=train, current=current)
    assert (trials[0].overrides, trials[0].suggested) == ({}, None)
    assert set(trials[1].overrides) == {LR, WIDTH}


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random", "grid"])
def test_every_value_tried_is_one_of_the_space(tmp_path: Path, sampler: str) -> None:
    space = {**SPACE, "build.model.layers": {"low": 1, "high": 3}}
    if sampler == "grid":
        space = {LR: [1e-3, 0.1], WIDTH: [8, 16]}
    params = tune_params(sampler=sampler, space=space, batch=4, trials=14)
    for trial in trials_of(params, tmp_path / "journal")[1:]:
        values = trial.overrides
        assert values[WIDTH] in [8, 16, 32, 64]
        assert 1e-4 <= values[LR] <= 1.0
        assert isinstance(values[LR], float)
        if sampler != "grid":
            assert values["build.model.layers"] in [1, 2, 3]


def test_a_logarithmic_range_is_drawn_by_its_logarithm(tmp_path: Path) -> None:
    trials = trials_of(tune_params(sampler="random", trials=101), tmp_path / "journal")
    below = sum(values[LR] < 1e-2 for values in tried(trials)[1:])
    assert 35 <= below <= 65


@pytest.mark.parametrize("sampler", ALL)
def test_the_seed_alone_decides_what_is_tried(tmp_path: Path, sampler: str) -> None:
    params = tune_params(sampler=sampler, trials=12, batch=4, space=space_of(sampler))
    first, again, other = (
        tried(trials_of(params, tmp_path / name, seed=seed))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_members_that_train_in_turns_make_the_same_search(tmp_path: Path, pruner: str) -> None:
    params = tune_params(pruner=pruner, batch=4, trials=16)
    side_by_side = trials_of(params, tmp_path / "one")
    assert trials_of(params, tmp_path / "two", train=in_turns(bowl)) == side_by_side
    assert pruner == "none" or any(trial.end == "pruned" for trial in side_by_side)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_a_sampler_learns_where_it_is_good(tmp_path: Path, sampler: str) -> None:
    space = {LR: SPACE[LR], WIDTH: {"low": 8, "high": 64}}

    def middle(sampler: str) -> float:
        params = tune_params(sampler=sampler, trials=26, batch=4, space=space)
        trials = trials_of(params, tmp_path / sampler)[14:]
        return statistics.median(trial.value or 0.0 for trial in trials)

    assert middle(sampler) < 0.6 * middle("random")


@pytest.mark.parametrize("sampler", ALL)
def test_the_largest_seed_serves_every_trial(tmp_path: Path, sampler: str) -> None:
    params = tune_params(sampler=sampler, space={LR: [1e-3, 0.1], WIDTH: [8, 16]}, trials=3)
    assert len(trials_of(params, tmp_path / "journal", seed=MAX_SEED)) == 3


def test_the_first_of_equals_wins(tmp_path: Path) -> None:
    train = in_step(lambda _overrides, _epoch: 1.0)
    assert best_trial(run(tune_params(trials=4), tmp_path / "journal", train=train)).number == 0


def test_more_is_better_when_it_is_maximised(tmp_path: Path) -> None:
    found = search(tune_params(), CURRENT, "maximize", 0, tmp_path / "journal", in_step(bowl))
    assert best_trial(found).value == max(trial.value or 0.0 for trial in found.trials)


def test_the_parameter_that_matters_is_the_important_one(tmp_path: Path) -> None:
    params = tune_params(sampler="random", trials=40)
    shares = importances(run(params, tmp_path / "journal"), params)
    assert list(shares) == [LR, WIDTH]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares[LR] > 0.7
