"""A smaller model: what is counted, which trials are not tried, and which one is picked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.common.config import Overrides
from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.common.yamlfile import read_yaml
from stages.tune.model_size import find_front, pick
from stages.tune.params import ModelSize
from stages.tune.trials import OnEpochEnd, Search, Trial, TrialResult
from tests.conftest import Project
from tests.stages.tune.conftest import LR, WIDTH, tune
from tests.stages.tune.test_study import ALL, bowl, in_step, run, story, tune_params
from tests.support.samples import run_stages, set_params

SIZES = {0: 500, 1: 100, 2: 900, 3: 300, 4: 300, 5: 50}
VALUES = (0.50, 0.60, 0.44, 0.45, 0.45, None)


def found(direction: str = "minimize") -> Search:
    sign = 1 if direction == "minimize" else -1
    trials = tuple(
        Trial(
            number=number,
            origin="tpe",
            overrides={},
            end="diverged" if value is None else "complete",
            value=None if value is None else sign * value,
            values=(),
            suggested={},
            asked=number,
        )
        for number, value in enumerate(VALUES)
    )
    return Search(trials, direction, "tpe", "")


def asked(most: int | None = None, within: float = 0.0) -> ModelSize:
    return ModelSize(of="weights", most=most, within=within)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    ("rule", "number"),
    [
        (None, 2),
        (asked(), 2),
        # In floats 0.45 is not quite 0.44 + 0.01.
        (asked(within=0.01), 3),
        (asked(within=0.2), 1),
        (asked(most=899), 3),
        (asked(most=299), 1),
        (asked(most=400, within=0.14), 3),
        (asked(most=400, within=0.15), 1),
    ],
)
def test_the_smallest_that_is_good_enough_is_picked(
    direction: str, rule: ModelSize | None, number: int
) -> None:
    assert pick(found(direction), SIZES, rule).number == number


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_front_has_what_no_other_beats_in_both(direction: str) -> None:
    assert [trial.number for trial in find_front(found(direction), SIZES)] == [1, 3, 2]


def test_where_none_is_small_enough_the_limit_is_said() -> None:
    with pytest.raises(UserError, match="the smallest of those that came to their end has 100"):
        pick(found(), SIZES, asked(most=99))


@pytest.mark.parametrize("sampler", ALL)
def test_what_is_too_large_is_not_tried(tmp_path: Path, sampler: str) -> None:
    space: dict[str, Any] = {LR: {"low": 1e-4, "high": 1e-1, "log": True}, WIDTH: [8, 16, 32, 64]}
    space = {LR: [1e-3, 1e-2], WIDTH: [8, 16, 32]} if sampler == "grid" else space
    params = tune_params(sampler=sampler, space=space, trials=14, batch=3)
    portfolio: dict[str, Overrides] = {"large": {WIDTH: 128}, "small": {WIDTH: 8}}

    def fits(overrides: Overrides) -> bool:
        return bool(overrides.get(WIDTH, 16) <= 16)

    given = {} if sampler == "grid" else {"portfolio": portfolio}
    # Trial 0 is what stands in `params.yaml`, whatever its size.
    large = {LR: 0.5, WIDTH: 64}
    trials = run(
        params, tmp_path / "a", train=in_step(bowl), current=large, fits=fits, **given
    ).trials
    widths = [{**large, **trial.overrides}[WIDTH] for trial in trials]
    assert widths[0] == 64
    assert {*widths[1:]} == {8, 16}
    assert len(trials) == (5 if sampler == "grid" else 14)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_search_with_a_limit_goes_on_from_wherever_its_journal_ends(
    tmp_path: Path, sampler: str
) -> None:
    space = {LR: {"low": 1e-4, "high": 1e-1, "log": True}, WIDTH: {"low": 8, "high": 64}}
    params = tune_params(sampler=sampler, space=space, trials=18, batch=3)

    def search(name: str, *, killed_after: int | None = None) -> Search:
        begun: list[int] = []

        def train(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
            begun.append(1)
            if len(begun) == killed_after:
                raise KeyboardInterrupt
            return in_step(bowl)(tried, on_epoch_end)

        return run(params, tmp_path / name, train=train, fits=lambda o: o.get(WIDTH, 16) <= 24)

    whole = search("whole")
    with pytest.raises(KeyboardInterrupt):
        search("killed", killed_after=5)
    assert story(search("killed").trials) == story(whole.trials)


def test_the_size_stands_beside_each_trial_and_the_smaller_one_is_trained(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    rule: dict[str, Any] = {"of": "weights", "most": None, "within": 1000.0}
    set_params(project, {"tune.model_size": rule})
    tune(project, 4, "grid", {LR: [0.01, 0.05], WIDTH: [3, 6]})
    folder = project.path / "data/tune"
    rows = read_csv(folder / "trials.csv")
    summary = (project.path / "data/build/summary.txt").read_text(encoding="utf-8")
    weights = {row[WIDTH]: int(row["size"]) for row in rows}
    # As build counts them, at the width of `params.yaml`.
    assert f" {weights['3']} " in summary.splitlines()[-1]
    assert weights["3"] < weights["6"]
    best = min((r for r in rows if r[WIDTH] == "3"), key=lambda row: float(row["value"]))
    assert read_json(folder / "search.json")["best"]["trial"] == int(best["trial"])
    assert read_json(folder / "search.json")["best"]["size"] == weights["3"]
    assert "size: " in capsys.readouterr().out
    front = {row["trial"] for row in rows if row["front"]}
    plot = read_csv(folder / "plots/front.csv")
    assert {row["trial"] for row in plot if row["front"] == "no other is better in both"} == front
    assert len(plot) == len(rows)
    run_stages(project, "train")
    assert read_json(project.path / "data/train/model.json")["arguments"]["width"] == 3

    set_params(project, {"tune.model_size": {**rule, "of": "multiply_adds", "most": 1}})
    with pytest.raises(UserError, match="no trial has at most 1 multiply-adds") as raised:
        tune(project, 4, "grid", {LR: [0.01, 0.05], WIDTH: [3, 6]})
    assert raised.value.problems[0].key == "tune.model_size.most"
    products = int(summary.splitlines()[-1].split()[-1].replace(",", ""))
    assert f"has {products:,}" in raised.value.problems[0].message


def test_without_the_key_nothing_is_counted(project: Project) -> None:
    tune(project, 2, "grid", {LR: [0.01, 0.05]})
    folder = project.path / "data/tune"
    assert list(read_csv(folder / "trials.csv")[0])[:6] == [
        *("trial", "state", "value", "epochs", "origin", LR)
    ]
    assert read_csv(folder / "plots/front.csv") == []
    assert read_yaml(folder / "best.yaml")
