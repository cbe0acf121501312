"""Searches that go on from their journal, and trials of a portfolio."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.common.config import Overrides
from stages.tune.trials import OnEpochEnd, TrialResult
from tests.stages.tune.conftest import LR, WIDTH
from tests.support.stages.searches import bowl, in_step, space_of, story, trials_of, tune_params

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
