"""Trials that are stopped early, and searches that end."""

import statistics
from pathlib import Path

import pytest

from stages.tune.pruners import rungs
from tests.support.stages.searches import EPOCHS, in_step, run, trials_of, tune_params


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
