"""Advice: intervals, suspects, curves and leaks by hand; a whole run, killed and resumed."""

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.commands.review.advise import apply_advice, read_budget
from pipeline.params.check import find_problems
from pipeline.report.advice.content import read_report
from pipeline.report.advice.measure import write_pages
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml
from stages.features.schema import read_schema
from stages.model.model import read_spec
from stages.tools.advise import __main__ as tool
from stages.tools.advise.changes import list_arms
from stages.tools.advise.columns import find_leak
from stages.tools.advise.curve import fit_curve
from stages.tools.advise.labels import find_suspects
from stages.tools.advise.measure import trainings
from stages.tools.advise.measure.arms import Incumbent
from stages.tools.advise.measure.judge import Estimate, Metric, estimate
from stages.tools.advise.measure.rows import Change, Pool, read_pool
from stages.tools.advise.measure.trainings import Journal, Outcome
from stages.training.data.source import TensorSource
from stages.training.recipe import BUILT, PREPARED
from tests.conftest import Project
from tests.stages.tools.conftest import Call
from tests.support.samples import run_stages, small_project

CHANGES = {
    "build.model": {"name": "mlp", "width": 8},
    "train.epochs": 3,
    "prepare.key": None,
    "prepare.columns": {},
    "evaluate.metrics": ["accuracy"],
}


def ring(num_rows: int, seed: int = 0) -> pl.DataFrame:
    """Rows inside and outside of a circle, and a column that says nothing."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(num_rows, 3))
    label = np.square(rows[:, :2]).sum(axis=1) > 1.4
    return pl.DataFrame(
        {"x": rows[:, 0], "y": rows[:, 1], "noise": rows[:, 2], "target": np.where(label, "o", "i")}
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small table, prepared, with a model that is built."""
    folder = tmp_path_factory.mktemp("advise") / "project"
    changes = {**CHANGES, "prepare.target": "target"}
    project = small_project(folder, ring(200), changes)
    run_stages(project, "prepare", "build")
    return project


def pool_of(project: Project) -> Pool:
    with contextlib.chdir(project.path):
        return read_pool(read_schema(PREPARED), 0, torch.device("cpu"))


def test_an_interval_holds_the_luck_of_rows_and_of_trainings() -> None:
    # Forty groups of rows whose mean gains are drawn: leaving one out moves the mean by a 39th.
    random = np.random.default_rng(0)
    groups = random.normal(0.1, 0.2, size=40)
    without = [(groups.sum() - group) / 39 for group in groups]
    found = estimate([float(groups.mean())] * 4, without)
    assert found is not None
    assert found.error == pytest.approx(groups.std(ddof=1) / math.sqrt(40))
    assert found.low < groups.mean() < found.high
    normal = 1 - 0.5 * math.erfc(found.gain / found.error / 2**0.5)
    assert found.probability == pytest.approx(normal, abs=0.01)
    wider = estimate([0.05, 0.15, 0.05, 0.15], without)
    assert wider is not None
    assert wider.high - wider.low > found.high - found.low
    assert estimate([0.1], without) is None


def test_rows_with_wrong_labels_are_suspects() -> None:
    random = np.random.default_rng(1)
    right = random.integers(3, size=600)
    flipped = random.random(600) < 0.1
    codes = np.where(flipped, (right + 1) % 3, right)
    scores = random.normal(size=(600, 3))
    scores[np.arange(600), right] += 4
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    found = find_suspects(shares, codes)
    assert np.isin(found.rows, np.flatnonzero(flipped)).mean() > 0.85
    assert np.isin(np.flatnonzero(flipped), found.rows).mean() > 0.85
    assert (found.likelier == right[found.rows]).mean() > 0.9
    assert (np.diff(found.margins) <= 0).all()


def test_the_curve_is_followed_beyond_its_end() -> None:
    sizes = (100, 200, 400, 800)
    values = {n: np.full(8, 0.9 - 2.0 * n**-0.5) for n in sizes}
    gain = float(values[800][0] - values[100][0])
    whole = Estimate(gain, 0.001, gain - 0.002, gain + 0.002, 1.0, 8)
    curve = fit_curve(values, whole, seed=0)
    assert curve.power == pytest.approx(0.5)
    ahead = 2.0 * 800**-0.5 - 2.0 * 1600**-0.5
    assert curve.doubled.gain == pytest.approx(ahead)
    assert curve.doubled.low < ahead < curve.doubled.high
    needed = curve.rows_for(ahead)
    assert needed == pytest.approx(800, abs=1)
    assert curve.rows_for(10.0) is None


def test_every_change_is_one_that_the_check_takes(
    built: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(built.path)
    # The file that a null stands for in dvc.yaml.
    Path("None").touch()
    tree = read_yaml(Path("params.yaml"))
    pool = read_pool(read_schema(PREPARED), 0, torch.device("cpu"))
    arms = list_arms(Incumbent(tree["train"], read_spec(BUILT), pool, "accuracy"))
    assert {arm.axis for arm in arms} == {"data", "model", "loss", "optimizer"}
    assert len({arm.name for arm in arms}) == len(arms) > 30
    of_axes = {arm.axis: arm for arm in arms}
    for arm in of_axes.values():
        changed = json.loads(json.dumps(tree))
        for path, value in arm.applies.items():
            *keys, last = path.split(".")
            node = changed
            for key in keys:
                node = node[key]
            assert node.get(last) != value
            node[last] = value
        assert find_problems(changed) == [], arm.title


def test_folds_are_divided_anew_and_hold_each_row_once(built: Project) -> None:
    pool = pool_of(built)
    one, other = pool.splits(1, 1.0), pool.splits(2, 1.0)
    for splits in (one, other):
        held = np.concatenate([split.validated for split in splits])
        assert np.array_equal(np.sort(held), np.arange(len(pool)))
        assert all(np.intersect1d(s.learned, s.validated).size == 0 for s in splits)
    assert not np.array_equal(one[0].validated, other[0].validated)
    part = pool.divide(one[0], Change(share=0.25, column="x"))
    assert len(part.train) == pytest.approx(len(one[0].learned) / 4, abs=2)
    assert isinstance(part.validation, TensorSource)
    column = pool.schema.places()["x"].all
    assert (part.validation.batch["numeric"][:, column] == 0).all()


def test_a_column_that_tells_the_target_is_an_alarm(tmp_path: Path) -> None:
    table = ring(300)
    told = (table["target"] == "o").cast(pl.Float64)
    noise = pl.Series(np.random.default_rng(2).normal(size=300) * 0.1)
    leaking = table.with_columns((told + noise).alias("after"))
    changes = {**CHANGES, "prepare.target": "target"}
    project = small_project(tmp_path / "project", leaking, changes)
    run_stages(project, "prepare", "build")
    pool, metric = pool_of(project), Metric("accuracy", "classification")
    leak = find_leak(pool, pool.splits(0, 1.0)[0], 0.99, metric)
    assert leak is not None
    assert leak.column == "after"
    assert leak.alone > 0.95
    # Of the same table without it no column is one.
    without = small_project(tmp_path / "without", table, changes)
    run_stages(without, "prepare", "build")
    pool = pool_of(without)
    assert find_leak(pool, pool.splits(0, 1.0)[0], 0.99, metric) is None


def test_a_run_that_was_killed_goes_on(
    built: Project, call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    added: list[str] = []
    add = Journal.add

    def until_killed(journal: Journal, name: str, outcome: Outcome) -> None:
        add(journal, name, outcome)
        added.append(name)
        if len(added) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainings.Journal, "add", until_killed)
    with pytest.raises(SystemExit):
        call(tool, built, "--budget-seconds", "5")
    call(tool, built, "--budget-seconds", "5")
    assert len(added) == len(set(added)) > 20
    assert "goes on with 20 trainings" in capsys.readouterr().out
    report = read_report()
    for each in report.advice:
        assert each["axis"] in ("data", "model", "loss", "optimizer")
        assert each["low"] <= each["gain"] <= each["high"]
        assert each["sure"] == (each["low"] > 0)
    axes = {each["axis"] for each in report.content["axes"]}
    assert axes <= {"data", "model", "loss", "optimizer"}
    # No test row was looked at: those of train and validation are all.
    assert report.content["num_rows"] == 160


def test_pages_say_what_was_found_and_a_number_writes_it(
    built: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(built.path)
    report = read_report()
    text = write_pages()
    page = Path(".reprise/advise/report.html").read_text(encoding="utf-8")
    for each in report.advice:
        assert each["cost"] in text
        assert f"{each['gain']:+.4f}" in page
        assert f"{each['gain']:+.4f}" in text
    assert "src=" not in page
    assert "<script" not in page
    numbers = [n for n, each in enumerate(report.advice, 1) if each["applies"]]
    before = Path("params.yaml").read_text(encoding="utf-8")
    apply_advice(numbers[0])
    path, value = next(iter(report.advice[numbers[0] - 1]["applies"].items()))
    section, key = path.split(".", 1)
    tree = read_yaml(Path("params.yaml"))[section]
    for part in key.split("."):
        tree = tree[part]
    assert tree == value
    assert "+" in capsys.readouterr().out
    Path("params.yaml").write_text(before, encoding="utf-8")
    with pytest.raises(UserError, match="the last report has no such advice"):
        apply_advice(99)


def test_a_budget_is_a_time() -> None:
    assert [read_budget(text) for text in ("90s", "10m", "1.5h")] == [90, 600, 5400]
    for text in ("10", "0m", "ten", "5 m", "-1m"):
        with pytest.raises(UserError, match="such as 90s"):
            read_budget(text)
