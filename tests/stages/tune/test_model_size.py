"""A smaller model: what is counted, which trials are not tried, and which one is picked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.common.config import Overrides
from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.common.yamlfile import read_yaml
from stages.model.model import ModelSpec, arguments_class, make_model
from stages.tensors.batch import Batch
from stages.training.packed.rule import count_products
from stages.tune.model_size import count, find_front, make_limit, pick
from stages.tune.params import ModelSize
from stages.tune.trials import OnEpochEnd, Search, Trial, TrialResult
from tests.conftest import Project
from tests.stages.tune.conftest import LR, WIDTH, tune
from tests.support.samples import run_stages, set_params
from tests.support.stages.searches import ALL, bowl, in_step, run, story, tune_params

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
    params = tune_params(sampler=sampler, space=space, trials=14, batch=3)

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


def test_no_more_recipes_are_counted_than_are_tried(tmp_path: Path) -> None:
    counted: list[Overrides] = []

    def fits(overrides: Overrides) -> bool:
        counted.append(overrides)
        return True

    for sampler in ("random", "grid"):
        counted.clear()
        space = {LR: [n / 1000 for n in range(1, 50)], WIDTH: [*range(1, 30)]}
        params = tune_params(sampler=sampler, space=space, trials=6, batch=2)
        assert len(run(params, tmp_path / sampler, fits=fits).trials) == 6
        assert len(counted) <= 6


def test_a_limit_that_few_recipes_keep_is_the_reason_of_the_end(tmp_path: Path) -> None:
    listed = {LR: [1e-3, 1e-2], WIDTH: [8, 16, 32]}
    endless = {LR: {"low": 1e-4, "high": 1e-1}, WIDTH: {"low": 1, "high": 1000, "log": False}}
    few = tune_params(sampler="random", space=listed, trials=9)
    found = run(few, tmp_path / "few", fits=lambda o: o.get(WIDTH, 16) <= 8)
    assert len(found.trials) == 3
    assert (
        found.reason == "no recipe within tune.model_size.most is left in the space after 3 trials"
    )
    # One of a hundred recipes is small enough.
    rare = tune_params(sampler="tpe", space=endless, trials=6, batch=3)
    found = run(rare, tmp_path / "rare", fits=lambda o: o.get(WIDTH, 16) <= 10)
    assert len(found.trials) == 6
    none = run(rare, tmp_path / "none", fits=lambda o: o.get(WIDTH, 16) < 1)
    assert none.reason.startswith("no recipe within tune.model_size.most was found in 2,000 random")
    all_tried = run(few, tmp_path / "all")
    assert all_tried.reason == "no recipe is left in the space after 7 trials"


def spec_of(name: str, **arguments: Any) -> ModelSpec:
    given = {**arguments_class(name)().model_dump(), **arguments}
    return ModelSpec(name=name, arguments=given, inputs={"numeric": [3]}, num_outputs=2)


@pytest.mark.parametrize("name", ["mlp", "tabm", "transformer"])
def test_the_size_is_that_of_the_model_with_all_its_numbers(name: str) -> None:
    inputs = {"text": [6, 50]} if name == "transformer" else {"numeric": [3]}
    spec = spec_of(name).model_copy(update={"inputs": inputs})
    batch: Batch = {kind: torch.zeros(2, shape[0]) for kind, shape in inputs.items()}
    batch = {k: v.long() if k == "text" else v for k, v in batch.items()}
    model = make_model(spec, 0)
    state = torch.get_rng_state()
    assert count(spec, batch, "weights") == sum(w.numel() for w in model.parameters())
    assert count(spec, batch, "multiply_adds") == count_products(model, batch) // 2
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_larger_than_any_memory_is_counted_and_not_drawn() -> None:
    huge = spec_of("mlp", width=1_000_000, layers=3)
    batch: Batch = {"numeric": torch.zeros(2, 3)}
    for of in ("weights", "multiply_adds"):
        assert count(huge, batch, of) > 2 * 10**12


class Looks(torch.nn.Module):
    """A model whose code looks at the numbers, as one of one's own may."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.output = torch.nn.Linear(3, 2)
        if place == "weights":
            assert self.output.weight.detach().numpy().any()

    def forward(self, batch: Batch) -> torch.Tensor:
        rows = batch["numeric"]
        return self.output(rows) if rows.numpy().sum() == 6 else self.output(rows * 2)


@pytest.mark.parametrize("place", ["rows", "weights"])
def test_a_model_that_looks_at_numbers_is_counted_with_them(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("stages.tune.model_size.make_model", lambda *_: Looks(place))
    batch: Batch = {"numeric": torch.ones(2, 3)}
    assert count(spec_of("mlp"), batch, "weights") == 8
    assert count(spec_of("mlp"), batch, "multiply_adds") == 6


def test_values_that_no_model_takes_together_are_not_tried() -> None:
    def measure(overrides: Overrides) -> int:
        if overrides[WIDTH] == 7:
            raise UserError("width must be a multiple of heads")
        return int(overrides[WIDTH])

    fits = make_limit(measure, 8)
    assert [fits({WIDTH: width}) for width in (7, 8, 9)] == [False, True, False]
    # Without a limit nothing is counted.
    assert make_limit(measure, None)({WIDTH: 7})


def test_what_is_too_large_is_no_member_of_the_ensemble(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.tune.results.MIN_ROWS", 10)
    # At a width of 3, that of trial 0, there are more weights.
    rule = {"of": "weights", "most": 30, "within": 0.0}
    set_params(project, {"tune.model_size": rule, "tune.keep_scores": 9, "tune.epochs": 1})
    tune(project, 9, "grid", {WIDTH: [1, 2]})
    folder = project.path / "data/tune"
    sizes = {row["trial"]: int(row["size"]) for row in read_csv(folder / "trials.csv")}
    assert sizes["0"] > 30
    kept = {file.stem for file in (folder / "scores").iterdir()}
    assert kept == {number for number, size in sizes.items() if size <= 30} != set()
    members = read_json(folder / "ensemble.json").get("members", [])
    assert {str(member["trial"]) for member in members} <= kept


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
