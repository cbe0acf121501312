"""The search itself, on a function whose lowest point is known."""

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from stages.common.config import MAX_SEED, Overrides
from stages.tune.params import TuneParams
from stages.tune.study import best_trial, finished, importances, search
from tests.stages.tune.conftest import LR, SPACE, WIDTH

CURRENT: Overrides = {LR: 0.5, WIDTH: 16}
EPOCHS = 9


def tune_params(**changes: object) -> TuneParams:
    section = {"trials": 12, "epochs": EPOCHS, "sampler": "tpe", "pruner": "none", "space": SPACE}
    return TuneParams.model_validate({**section, **changes})


def bowl(overrides: Overrides, report: Callable[[int, float], None]) -> float:
    """A training in no time: best at a learning rate of 0.01 and 32 units."""
    tried = {**CURRENT, **overrides}
    depth = (math.log10(tried[LR]) + 2) ** 2 + abs(math.log2(tried[WIDTH]) - 5) / 10
    for epoch in range(1, EPOCHS + 1):
        report(epoch, depth + 1 / epoch)
    return float(depth + 1 / EPOCHS)


def trials_of(
    params: TuneParams, journal: Path, seed: int = 0, objective: Any = bowl
) -> list[FrozenTrial]:
    return finished(search(params, CURRENT, "minimize", seed, journal, objective))


def story(trials: list[FrozenTrial]) -> list[object]:
    """All that a trial is but for the time."""
    return [
        (t.number, t.state, t.values, t.params, t.intermediate_values, t.user_attrs) for t in trials
    ]


def tried(trials: list[FrozenTrial]) -> list[Overrides]:
    return [trial.user_attrs["tried"] for trial in trials]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_trial_zero_is_what_stands_in_the_parameters(tmp_path: Path, sampler: str) -> None:
    trials = trials_of(tune_params(sampler=sampler, trials=3), tmp_path / "journal")
    assert trials[0].user_attrs == {"overrides": {}, "tried": CURRENT}
    assert trials[0].value == pytest.approx(bowl({}, lambda _epoch, _value: None))
    # The sampler learns from it too.
    assert trials[0].params == {LR: 0.5, WIDTH: 1}
    assert all(set(trial.user_attrs["overrides"]) == set(SPACE) for trial in trials[1:])


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
    seen: list[Overrides] = []

    def objective(overrides: Overrides, report: Callable[[int, float], None]) -> float:
        seen.append(overrides)
        return 0.0

    params = tune_params(trials=2, space=space)
    study = search(params, current, "minimize", 0, tmp_path / "journal", objective)
    assert seen[0] == {}
    assert set(seen[1]) == {LR, WIDTH}
    assert finished(study)[0].params == {}
    assert finished(study)[0].user_attrs["tried"] == current


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_every_value_tried_is_one_of_the_space(tmp_path: Path, sampler: str) -> None:
    space = {**SPACE, "build.model.layers": {"low": 1, "high": 3}}
    if sampler == "grid":
        space = {LR: [1e-3, 0.1], WIDTH: [8, 16]}
    trials = trials_of(tune_params(sampler=sampler, space=space), tmp_path / "journal")
    for values in tried(trials)[1:]:
        assert values[WIDTH] in [8, 16, 32, 64]
        assert 1e-4 <= values[LR] <= 1.0
        assert isinstance(values[LR], float)
        if sampler != "grid":
            assert values["build.model.layers"] in [1, 2, 3]


def test_a_logarithmic_range_is_drawn_by_its_logarithm(tmp_path: Path) -> None:
    trials = trials_of(tune_params(sampler="random", trials=101), tmp_path / "journal")
    below = sum(values[LR] < 1e-2 for values in tried(trials)[1:])
    assert 35 <= below <= 65


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_the_seed_alone_decides_what_is_tried(tmp_path: Path, sampler: str) -> None:
    space = {LR: [1e-4, 1e-3, 1e-2, 1e-1], WIDTH: [8, 16, 32]} if sampler == "grid" else SPACE
    params = tune_params(sampler=sampler, trials=8, space=space)
    first, again, other = (
        tried(trials_of(params, tmp_path / name, seed))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert first != other


def test_tpe_learns_where_it_is_good(tmp_path: Path) -> None:
    def mean_depth(sampler: str) -> float:
        params = tune_params(sampler=sampler, trials=40)
        trials = trials_of(params, tmp_path / sampler)[20:]
        return sum(trial.value or 0.0 for trial in trials) / len(trials)

    assert mean_depth("tpe") < 0.5 * mean_depth("random")


GRID: dict[str, Any] = {LR: [1e-3, 1e-2, 0.5], WIDTH: [8, 16, 32, 64]}


def test_a_grid_tries_every_point_once(tmp_path: Path) -> None:
    trials = trials_of(tune_params(sampler="grid", space=GRID, trials=100), tmp_path / "journal")
    points = sorted((values[LR], values[WIDTH]) for values in tried(trials))
    # Trial 0 is one of them, and is not trained twice.
    assert points == sorted((lr, width) for lr in GRID[LR] for width in GRID[WIDTH])


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
    study = search(params, current, "minimize", 0, tmp_path / "journal", lambda _o, _r: 0.0)
    pairs = {str(trial.user_attrs["tried"]) for trial in finished(study)}
    assert len(pairs) == len(finished(study)) == 4


def test_median_pruning_stops_a_trial_that_is_worse_than_half_of_those_before(
    tmp_path: Path,
) -> None:
    params = tune_params(sampler="random", pruner="median", trials=30)
    trials = trials_of(params, tmp_path / "journal")
    complete: list[float] = []
    for trial in trials:
        first = trial.intermediate_values[1]
        # Optuna watches five trials before it prunes. A bowl is as deep in every epoch.
        worse = len(complete) >= 5 and first > statistics.median(complete)
        assert (trial.state == TrialState.PRUNED) == worse
        assert len(trial.intermediate_values) == (1 if worse else EPOCHS)
        if not worse:
            complete.append(first)
    assert len(complete) < len(trials)


class Merciless(BasePruner):
    """Cuts every trial short after its first epoch."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return True


def test_the_values_of_params_yaml_are_never_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.tune.study._pruner", lambda _params: Merciless())
    trials = trials_of(tune_params(trials=3), tmp_path / "journal")
    assert [len(trial.intermediate_values) for trial in trials] == [EPOCHS, 1, 1]
    assert trials[0].state == TrialState.COMPLETE


def test_hyperband_trains_few_trials_to_the_end(tmp_path: Path) -> None:
    params = tune_params(sampler="random", pruner="hyperband", trials=30)
    trials = trials_of(params, tmp_path / "journal")
    assert 5 <= sum(trial.state == TrialState.PRUNED for trial in trials) <= 25


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_the_largest_seed_serves_every_trial(tmp_path: Path, sampler: str) -> None:
    params = tune_params(sampler=sampler, space={LR: [1e-3, 0.1], WIDTH: [8, 16]}, trials=3)
    assert len(trials_of(params, tmp_path / "journal", seed=MAX_SEED)) == 3


def test_the_first_of_equals_wins(tmp_path: Path) -> None:
    study = search(
        tune_params(trials=4), CURRENT, "minimize", 0, tmp_path / "j", lambda _o, _r: 1.0
    )
    assert best_trial(study).number == 0


def test_more_is_better_when_it_is_maximised(tmp_path: Path) -> None:
    study = search(tune_params(), CURRENT, "maximize", 0, tmp_path / "journal", bowl)
    values = [trial.value for trial in finished(study)]
    assert best_trial(study).value == max(values)


def test_the_parameter_that_matters_is_the_important_one(tmp_path: Path) -> None:
    params = tune_params(sampler="random", trials=40)
    shares = importances(search(params, CURRENT, "minimize", 0, tmp_path / "journal", bowl))
    assert list(shares) == [LR, WIDTH]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares[LR] > 0.7


@pytest.mark.parametrize(
    ("sampler", "pruner"), [("tpe", "hyperband"), ("grid", "none"), ("random", "median")]
)
def test_a_search_goes_on_from_wherever_its_journal_ends(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    space = {LR: [1e-4, 1e-3, 1e-2, 1e-1], WIDTH: [8, 16, 32]} if sampler == "grid" else SPACE
    params = tune_params(sampler=sampler, pruner=pruner, trials=13, space=space)
    whole = tmp_path / "whole"
    expected = story(trials_of(params, whole))
    content = whole.read_bytes()
    # A kill may come at any byte: in a trial, between two, in the middle of a line.
    for cut in range(0, len(content), len(content) // 6):
        journal = tmp_path / f"cut-{cut}"
        journal.write_bytes(content[:cut])
        # What a killed process may leave behind.
        journal.with_name(f"{journal.name}.lock").symlink_to(journal)
        assert story(trials_of(params, journal)) == expected, cut


def test_finished_trials_are_not_run_again(tmp_path: Path) -> None:
    num_runs = 0

    def counted(overrides: Overrides, report: Callable[[int, float], None]) -> float:
        nonlocal num_runs
        num_runs += 1
        if num_runs == 5:
            raise KeyboardInterrupt
        return bowl(overrides, report)

    with pytest.raises(KeyboardInterrupt):
        trials_of(tune_params(), tmp_path / "journal", objective=counted)
    trials_of(tune_params(), tmp_path / "journal", objective=counted)
    assert num_runs == 12 + 1
