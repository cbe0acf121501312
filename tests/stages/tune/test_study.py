"""The search itself, on a function whose lowest point is known."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.config import MAX_SEED, Overrides
from stages.tune.params import TuneParams
from stages.tune.plots import importances
from stages.tune.pruners import rungs
from stages.tune.study import search
from stages.tune.trials import OnEpochEnd, Search, TrainTrials, Trial, TrialResult, best_trial
from tests.stages.tune.conftest import LR, SPACE, WIDTH

CURRENT: Overrides = {LR: 0.5, WIDTH: 16}
EPOCHS = 9


def tune_params(**changes: object) -> TuneParams:
    section = {
        "trials": 12,
        "batch": 1,
        "epochs": EPOCHS,
        "seconds": None,
        "patience": None,
        "sampler": "tpe",
        "pruner": "none",
        "portfolio": False,
        "keep_scores": 0,
        "model_size": None,
        "space": SPACE,
    }
    return TuneParams.model_validate({**section, **changes})


def bowl(overrides: Overrides, epoch: int) -> float:
    """A training in no time: best at a learning rate of 0.01 and 32 units."""
    tried = {**CURRENT, **overrides}
    depth = (math.log10(tried[LR]) + 2) ** 2 + abs(math.log2(tried[WIDTH]) - 5) / 10
    return float(depth + 1 / epoch)


def in_step(value: Callable[[Overrides, int], float]) -> TrainTrials:
    """Trains that function: all members of a batch reach an epoch at once."""

    def train_trials(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        results = [TrialResult("complete", value(each, EPOCHS)) for each in tried]
        left = set(range(len(tried)))
        for epoch in range(1, EPOCHS + 1):
            values = {place: value(tried[place], epoch) for place in left}
            for place in on_epoch_end(epoch, values) if left else ():
                left.remove(place)
                results[place] = TrialResult("pruned", None)
        return results

    return train_trials


def in_turns(value: Callable[[Overrides, int], float]) -> TrainTrials:
    """Trains that function, one member to its end after another."""

    def train_trials(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        def numbered(place: int) -> OnEpochEnd:
            def call(epoch: int, values: Mapping[int, float]) -> set[int]:
                ended = on_epoch_end(epoch, {place: values[0]})
                return {0} if ended else set()

            return call

        return [in_step(value)([each], numbered(i))[0] for i, each in enumerate(tried)]

    return train_trials


def run(
    params: TuneParams,
    journal: Path,
    seed: int = 0,
    train: TrainTrials | None = None,
    current: Overrides = CURRENT,
    **given: Any,
) -> Search:
    train = in_step(bowl) if train is None else train
    return search(params, current, "minimize", seed, journal, train, **given)


def trials_of(params: TuneParams, journal: Path, **given: Any) -> tuple[Trial, ...]:
    return run(params, journal, **given).trials


def tried(trials: Sequence[Trial]) -> list[Overrides]:
    return [{**CURRENT, **trial.overrides} for trial in trials]


def story(trials: Sequence[Trial]) -> list[Trial]:
    """All that a trial is but for what Optuna has noted: CMA-ES pickles its state there."""
    return [replace(trial, memory={}) for trial in trials]


ALL = ["tpe", "gp", "cmaes", "random", "grid"]


def space_of(sampler: str) -> dict[str, Any]:
    return {LR: [1e-4, 1e-3, 1e-2, 1e-1], WIDTH: [8, 16, 32]} if sampler == "grid" else SPACE


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


def test_median_pruning_stops_a_trial_that_is_worse_than_half_of_those_before(
    tmp_path: Path,
) -> None:
    params = tune_params(sampler="random", pruner="median", trials=30, batch=3)
    trials = trials_of(params, tmp_path / "journal")
    complete: list[float] = []
    for first in range(0, len(trials), 3):
        batch = trials[first : first + 3]
        for trial in batch:
            # It takes five trials to prune. A bowl is as deep in every epoch.
            worse = len(complete) >= 5 and trial.values[0] > statistics.median(complete)
            assert (trial.end == "pruned") == worse
            assert len(trial.values) == (1 if worse else EPOCHS)
        complete += [trial.values[0] for trial in batch if trial.end == "complete"]
    assert len(complete) < len(trials)


def test_the_values_of_params_yaml_are_never_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Merciless: it cuts every trial short after its first epoch.
    monkeypatch.setattr(
        "stages.tune.study.make_pruner", lambda *_: lambda _epoch, values: {*values}
    )
    trials = trials_of(tune_params(trials=3, batch=2), tmp_path / "journal")
    assert [len(trial.values) for trial in trials] == [EPOCHS, 1, 1]
    assert trials[0].end == "complete"


def test_hyperband_trains_few_trials_to_the_end(tmp_path: Path) -> None:
    params = tune_params(sampler="random", pruner="hyperband", trials=30)
    trials = trials_of(params, tmp_path / "journal")
    assert 5 <= sum(trial.end == "pruned" for trial in trials) <= 25


def test_halving_keeps_the_best_third_of_a_batch_at_each_rung(tmp_path: Path) -> None:
    params = tune_params(sampler="random", pruner="halving", trials=10, batch=9)
    assert rungs(EPOCHS) == [1, 3]
    *first, alone = trials_of(params, tmp_path / "journal")
    lasted = {trial.number: len(trial.values) for trial in first}
    best = sorted(first, key=lambda trial: trial.values[0])
    # Of nine, three go on from the first epoch, and one from the third; trial 0 in any case.
    for place, trial in enumerate(best):
        expected = EPOCHS if place == 0 or trial.number == 0 else 3 if place < 3 else 1
        assert lasted[trial.number] == expected
    # Alone in its batch it is the best of it.
    assert alone.end == "complete"


def test_rungs_are_shares_of_the_epochs() -> None:
    assert rungs(100) == [1, 3, 9, 27]
    assert rungs(1) == []


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


def test_a_search_ends_when_nothing_better_comes(tmp_path: Path) -> None:
    train = in_step(lambda overrides, _epoch: 0.0 if overrides else -1.0)
    found = run(tune_params(patience=5, batch=2, trials=99), tmp_path / "journal", train=train)
    assert len(found.trials) == 6
    assert found.reason == "5 trials were no better than trial 0"


def test_a_search_ends_when_its_seconds_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("stages.tune.study.time.monotonic", lambda: float(next(clock)))
    found = run(tune_params(seconds=30, batch=2, trials=99), tmp_path / "journal")
    # A batch looks at the clock eleven times: when it begins, after each epoch and at its end.
    assert len(found.trials) == 6
    assert found.reason == "30 seconds of training are over after 6 trials"


PORTFOLIO: dict[str, Overrides] = {
    "narrow": {LR: 0.01, WIDTH: 8},
    "twin": {WIDTH: 8, LR: 0.01},
    "as it is": {LR: 0.5},
    "elsewhere": {LR: 0.02, WIDTH: 33},
    "more": {LR: 0.02, "train.clip_norm": 1.0},
}


def test_a_portfolio_is_tried_first_and_what_lies_in_the_space_is_learnt_from(
    tmp_path: Path,
) -> None:
    trials = trials_of(tune_params(batch=3, trials=6), tmp_path / "j", portfolio=PORTFOLIO)
    assert [trial.origin for trial in trials] == [
        *("params.yaml", "narrow", "elsewhere", "more"),
        *("tpe", "tpe"),
    ]
    assert trials[1].suggested == {LR: 0.01, WIDTH: 0}
    assert [trial.suggested for trial in trials[2:4]] == [None, None]


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("tpe", "hyperband"),
        ("grid", "none"),
        ("random", "halving"),
        ("gp", "median"),
        ("cmaes", "none"),
    ],
)
def test_a_search_goes_on_from_wherever_its_journal_ends(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    params = tune_params(
        sampler=sampler, pruner=pruner, trials=15, batch=4, space=space_of(sampler)
    )
    whole = tmp_path / "whole"
    given: dict[str, Any] = {} if sampler == "grid" else {"portfolio": PORTFOLIO}
    expected = story(trials_of(params, whole, **given))
    content = whole.read_bytes()
    # A kill may come at any byte: in a trial, between two, in the middle of a line.
    for cut in range(0, len(content), len(content) // 4):
        journal = tmp_path / f"cut-{cut}"
        journal.write_bytes(content[:cut])
        assert story(trials_of(params, journal, **given)) == expected, cut


def test_finished_batches_are_not_run_again(tmp_path: Path) -> None:
    batches: list[int] = []

    def counted(overrides: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        batches.append(len(overrides))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return in_step(bowl)(overrides, on_epoch_end)

    params = tune_params(batch=5, trials=12)
    with pytest.raises(KeyboardInterrupt):
        trials_of(params, tmp_path / "journal", train=counted)
    trials_of(params, tmp_path / "journal", train=counted)
    assert batches == [5, 5, 2, 2]


@pytest.mark.parametrize("pruner", ["hyperband", "halving", "median"])
def test_the_order_in_which_a_batch_is_told_of_changes_nothing(tmp_path: Path, pruner: str) -> None:
    def other_way_round(tried: Sequence[Overrides], told: OnEpochEnd) -> list[TrialResult]:
        return in_step(bowl)(tried, lambda epoch, v: told(epoch, dict(reversed(v.items()))))

    params = tune_params(sampler="random", pruner=pruner, trials=24, batch=12)
    one = trials_of(params, tmp_path / "one")
    two = trials_of(params, tmp_path / "two", train=other_way_round)
    assert story(one) == story(two)
    assert any(trial.end == "pruned" for trial in one)


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
