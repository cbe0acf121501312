"""Ensembles of trials: greedy selection, and a gain that is not the luck of its own rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.common.config import Overrides
from stages.common.files import read_csv, read_json
from stages.features.schema import Moments
from stages.tune.ensemble import MIN_ROWS, Metric, Rows, propose, select
from stages.tune.results import write_ensemble
from tests.conftest import Project
from tests.stages.tune.conftest import LR, SPACE, WIDTH, tune
from tests.support.samples import line, regression, run_stages, set_params

NUM_ROWS = 400


def rows_of(target: Any) -> Rows:
    return Rows(np.asarray(target, dtype=np.float64), np.ones(len(target)))


def noisy(num: int, seed: int = 0) -> tuple[dict[int, Any], Rows]:
    """Values that are off by noise of their own, equally far."""
    random = np.random.default_rng(seed)
    target = random.normal(size=NUM_ROWS)
    scores = {n: target + random.normal(size=NUM_ROWS) for n in range(num)}
    return scores, rows_of(target)


def test_models_that_err_differently_are_put_together() -> None:
    scores, rows = noisy(4)
    found = propose(scores, rows, "rmse", seed=0)
    assert set(found.members) == {0, 1, 2, 3}
    # The mean of four independent errors is half as large.
    assert found.value == pytest.approx(0.5, abs=0.06)
    assert found.best_value == pytest.approx(1.0, abs=0.08)
    assert found.low <= found.gain <= found.high
    assert found.gain == pytest.approx(0.5, abs=0.1)
    assert found.low > 0.3


def test_a_model_that_is_right_stays_alone() -> None:
    scores, rows = noisy(3)
    found = propose({7: rows.target + 0.01, **scores}, rows, "rmse", seed=0)
    assert (found.members, found.best) == ({7: 1}, 7)
    assert found.gain == 0.0


def test_transformed_values_are_averaged_as_learned_and_judged_in_units() -> None:
    scale = Moments(mean=1.0, deviation=2.0, transform="log1p")
    scores = np.array([0.5, 1.0, 2.0])
    units = np.expm1(scores * 2.0 + 1.0)
    # One is too low by as much as the other is too high: of logarithms their mean is right.
    rows = Rows(units, np.ones(3), scale)
    assert sorted(select([scores - 0.1, scores + 0.1], rows, "rmse")) == [0, 1]
    found = propose({0: scores - 0.1, 1: scores}, rows, "rmse", seed=0)
    assert (found.members, found.value) == ({1: 1}, pytest.approx(0.0, abs=1e-9))
    assert rows.take(np.array([1])).scale == scale


def test_luck_is_no_gain() -> None:
    # Forty coins: on all rows the best of their means looks better than chance, by halves not.
    random = np.random.default_rng(3)
    target = random.integers(2, size=NUM_ROWS)
    coins = {n: np.log(random.dirichlet([1, 1], NUM_ROWS)) for n in range(40)}
    found = propose(coins, rows_of(target), "accuracy", seed=0)
    assert found.value > 0.58
    assert found.low < 0.02
    assert found.gain < found.value - 0.5


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_a_member_may_join_more_than_once(metric: Metric) -> None:
    random = np.random.default_rng(0)
    target = random.integers(3, size=NUM_ROWS)
    good, other = (
        np.eye(3)[target] * strength + random.dirichlet([1, 1, 1], NUM_ROWS)
        for strength in (0.5, 0.2)
    )
    candidates = [p / p.sum(axis=1, keepdims=True) for p in (good, other)]
    chosen = select(candidates, rows_of(target), metric)
    best = {}
    # By hand: the best share of the one among all that up to 25 members can make.
    for total in range(1, 26):
        for count in range(total + 1):
            mean = (count * candidates[0] + (total - count) * candidates[1]) / total
            likelihood = mean[np.arange(NUM_ROWS), target]
            wrong = mean.argmax(axis=1) != target
            best[count / total] = np.mean(wrong if metric == "accuracy" else -np.log(likelihood))
    share = chosen.count(0) / len(chosen)
    assert best[share] <= min(best.values()) + 0.005


def test_weights_of_rows_count() -> None:
    target = np.zeros(4)
    first, second = np.array([0.0, 0.0, 3.0, 3.0]), np.array([2.0, 2.0, 0.0, 0.0])
    weight = np.array([1.0, 1.0, 0.0, 0.0])
    assert select([first, second], Rows(target, weight), "rmse") == [0]
    assert select([first, second], Rows(target, weight[::-1].copy()), "rmse") == [1]


def test_the_scores_of_the_best_trials_are_kept(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The sample has 18 validation rows.
    monkeypatch.setattr("stages.tune.results.MIN_ROWS", 10)
    set_params(project, {"tune.keep_scores": 3, "tune.epochs": 2})
    tune(project, 6, "random", SPACE)
    folder = project.path / "data/tune"
    trials = read_csv(folder / "trials.csv")
    values = {row["trial"]: float(row["value"]) for row in trials if row["state"] == "complete"}
    best = sorted(values, key=lambda number: values[number])[:3]
    assert {file.stem for file in (folder / "scores").iterdir()} == set(best)
    target = np.load(project.path / "data/prepare/validation/target.npy")
    for number in best:
        scores = np.load(folder / f"scores/{number}.npy")
        assert scores.dtype == np.float16
        loss = -scores[np.arange(len(target)), target].astype(np.float64).mean()
        assert loss == pytest.approx(values[number], rel=2e-3)
    proposal = read_json(folder / "ensemble.json")
    assert proposal["metric"] == "log_loss"
    assert {str(member["trial"]) for member in proposal["members"]} <= set(best)
    assert sum(member["weight"] for member in proposal["members"]) == pytest.approx(1.0)
    assert proposal["best"]["value"] == pytest.approx(values[best[0]], rel=2e-3)
    assert proposal["value"] <= proposal["best"]["value"]


def test_without_scores_nothing_is_proposed(project: Project) -> None:
    set_params(project, {"tune.keep_scores": 0, "tune.epochs": 1})
    tune(project, 2, "random", {LR: SPACE[LR], WIDTH: [3, 6]})
    assert read_json(project.path / "data/tune/ensemble.json") == {}
    assert [f.name for f in (project.path / "data/tune/scores").iterdir()] == ["none.txt"]
    run_stages(project, "train")


@pytest.mark.parametrize("num_counting", [6, 25])
def test_rows_of_weight_0_judge_nothing(tmp_path: Path, num_counting: int) -> None:
    scores, _ = noisy(3)
    split = line(NUM_ROWS)
    weight = (torch.arange(NUM_ROWS) < num_counting).float()
    data = replace(regression(), validation=replace(split, weight=weight))
    tried: dict[int, Overrides] = {number: {LR: 10.0**-number} for number in scores}
    write_ensemble(tmp_path, scores, tried, data, "rmse", seed=0)
    found = read_json(tmp_path / "ensemble.json")
    # Too few of them propose nothing, and nothing of the search is lost.
    assert bool(found) == (num_counting >= MIN_ROWS)
    assert len(list((tmp_path / "scores").iterdir())) == 3
