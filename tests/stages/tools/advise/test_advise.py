"""Advice of a whole run, killed and resumed; folds, shares and leaks of its rows."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.commands.review.advise import apply_advice
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
from stages.tools.advise.measure import trainings
from stages.tools.advise.measure.arms import Incumbent
from stages.tools.advise.measure.judge import Metric
from stages.tools.advise.measure.rows import Change, read_pool
from stages.tools.advise.measure.trainings import Journal, Outcome
from stages.training.data.source import TensorSource
from stages.training.recipe import BUILT, PREPARED
from tests.conftest import Project
from tests.stages.tools.conftest import Call
from tests.support.samples import run_stages, small_project
from tests.support.stages.advised import CHANGES, pool_of


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
    # The file that a null stands for in dvc.yaml, which `reprise check` looks for.
    (folder / "None").touch()
    return project


def test_every_change_is_one_that_the_check_takes(
    built: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(built.path)
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


@pytest.fixture(scope="module")
def advised(built: Project) -> tuple[Project, list[str], str]:
    """A project with a report, the trainings of both runs, and what the second one said.

    The first run was killed after its twentieth training.
    """
    added: list[str] = []
    add = Journal.add

    def until_killed(journal: Journal, name: str, outcome: Outcome) -> None:
        add(journal, name, outcome)
        added.append(name)
        if len(added) == 20:
            raise KeyboardInterrupt

    arguments = ["advise", "--budget-seconds", "5"]
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(built.path):
        patch.setattr(trainings.Journal, "add", until_killed)
        patch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit):
            tool.main()
        with contextlib.redirect_stdout(io.StringIO()) as said:
            tool.main()
    return built, added, said.getvalue()


def test_a_run_that_was_killed_goes_on(
    advised: tuple[Project, list[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, added, said = advised
    monkeypatch.chdir(project.path)
    assert "goes on with 20 trainings" in said
    assert len(added) == len(set(added)) > 20
    report = read_report()
    assert report.advice
    for each in report.advice:
        assert each["axis"] in ("data", "model", "loss", "optimizer")
        assert each["low"] <= each["gain"] <= each["high"]
        assert each["sure"] == (each["low"] > 0)
    # A slice of few rows has no say; none of the others promises a gain.
    assert all(each["rows"] >= 30 and "gain" not in each for each in report.content["slices"])
    # No test row was looked at: those of train and validation are all.
    assert report.content["num_rows"] == 160


def test_pages_say_what_was_found_and_a_number_writes_it(
    advised: tuple[Project, list[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(advised[0].path)
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
    assert "+" in capsys.readouterr().out
    for key, value in report.advice[numbers[0] - 1]["applies"].items():
        tree = read_yaml(Path("params.yaml"))
        for part in key.split("."):
            tree = tree[part]
        assert tree == value
    # What was measured is of another recipe now.
    with pytest.raises(UserError, match="has changed since the advice"):
        apply_advice(numbers[0])
    Path("params.yaml").write_text(before, encoding="utf-8")
    with pytest.raises(UserError, match="the last report has no such advice"):
        apply_advice(99)


def test_a_recipe_that_diverges_has_a_report_too(tmp_path: Path, call: Call) -> None:
    diverging = {"train.optimizer": {"name": "SGD", "lr": 1e30}, "train.clip_norm": None}
    changes = {**CHANGES, **diverging, "prepare.target": "target"}
    project = small_project(tmp_path / "project", ring(120), changes)
    run_stages(project, "prepare", "build")
    call(tool, project, "--budget-seconds", "4")
    report = read_report()
    assert report.content["train_loss"] is None
    # As good as a guess, which is what a diverged training is taken for.
    assert report.content["value"] == pytest.approx(0.5, abs=0.15)
    assert "unknown" in report.limits()


def test_rows_in_order_of_time_are_left_out_by_their_time(built: Project) -> None:
    pool = pool_of(built)
    ordered = replace(pool, schema=pool.schema.model_copy(update={"ordered": True}))
    (split, *others) = ordered.splits(1, 1.0)
    assert np.array_equal(split.validated, np.arange(pool.num_train, len(pool)))
    assert len(others) == 3
    groups = ordered.groups_to_leave_out()[split.validated]
    assert len(np.unique(groups)) >= 20
    assert (np.diff(groups) >= 0).all()


def test_a_share_is_of_each_class_and_holds_the_smaller_ones(built: Project) -> None:
    pool = pool_of(built)
    every = np.arange(len(pool))
    eighth, half = pool.part(every, 0.125), pool.part(every, 0.5)
    assert len(half) == 80
    assert len(eighth) == 20
    assert np.isin(eighth, half).all()
    shares = [pool.target(rows).astype(float).mean() for rows in (eighth, half, every)]
    assert max(shares) - min(shares) < 0.05
    # Whole groups, however few there are.
    groups = every // 40
    kept = groups[replace(pool, groups=groups).part(every, 0.5)]
    assert sorted(np.bincount(kept, minlength=4)) == [0, 0, 40, 40]
    with pytest.raises(UserError, match="fewer groups"):
        replace(pool, groups=every // 80).splits(0, 1.0)
