"""Advice on slices: where the recipe is surely worse, said without a gain."""

import numpy as np
import polars as pl
import pytest

from pipeline.report.advice.content import Report
from pipeline.report.advice.markdown import show, to_markdown
from pipeline.report.advice.page import to_html
from stages.evaluate.measure.bootstrap import Interval
from stages.evaluate.outputs.slices import Slice
from stages.tools.advise.measure.judge import UNCALIBRATED, Metric
from stages.tools.advise.slices import WeakSlice, find_weak, keep_sure
from tests.conftest import Project
from tests.support.samples import run_stages, small_project
from tests.support.stages.advised import CHANGES, pool_of

NUM_ROWS = 1000


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Rows of four sites, and a number that says nothing."""
    random = np.random.default_rng(0)
    table = pl.DataFrame(
        {
            "size": random.normal(size=NUM_ROWS),
            "site": random.choice(["north", "south", "east", "west"], size=NUM_ROWS),
            "target": random.choice(["i", "o"], size=NUM_ROWS),
        }
    )
    folder = tmp_path_factory.mktemp("slices") / "project"
    project = small_project(folder, table, {**CHANGES, "prepare.target": "target"})
    run_stages(project, "prepare", "build")
    return project


def weak_of(project: Project, share_wrong: float, name: str = "accuracy") -> list[WeakSlice]:
    """Predictions that are wrong for one row in twenty, and for `share_wrong` of those of west."""
    pool = pool_of(project)
    rows, random = np.arange(len(pool)), np.random.default_rng(1)
    place = pool.schema.places()["site"].all
    codes = pool.rows.batch["categorical"][:, place].numpy()[:, 0]
    west = (pool.schema.of_kind("categorical")[0].categories or []).index("west") + 1
    wrong = random.random(len(rows)) < np.where(codes == west, share_wrong, 0.05)
    scores = np.zeros((len(rows), 2))
    scores[rows, np.where(wrong, 1 - pool.target(rows), pool.target(rows))] = 3.0
    metric = Metric(name, "classification")
    return find_weak(pool, metric, (rows, scores), UNCALIBRATED, None)


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "f1_macro"])
def test_a_slice_that_is_worse_is_named_and_no_other(
    sites: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(sites.path)
    (weak,) = weak_of(sites, 0.3, name)
    assert (weak.column, weak.label) == ("site", "west")
    assert weak.rows == pytest.approx(200, abs=30)
    assert weak.low <= weak.value <= weak.high
    worse = weak.low > weak.whole if name == "log_loss" else weak.high < weak.whole
    assert worse
    assert weak_of(sites, 0.05, name) == []


def test_the_worst_of_many_slices_is_no_finding_by_itself() -> None:
    # At 0 twice its error below the whole: rare for one slice, usual for the worst of a hundred.
    found = Slice("a", "1", 100, Interval(0.80, 0.70, 0.895))
    plain = [Slice("b", str(n), 100, Interval(0.9, 0.85, 0.94)) for n in range(99)]
    assert keep_sure([found], 0.9, 1) == [found]
    assert keep_sure([found, *plain], 0.9, 1) == []
    few = Slice("a", "1", 20, Interval(0.1, 0.0, 0.2))
    undefined = Slice("a", "2", 50, Interval(float("nan")))
    assert keep_sure([few, undefined], 0.9, 1) == []
    # Less is better: what lies above is worse.
    assert keep_sure([Slice("a", "1", 100, Interval(2.0, 1.5, 2.5))], 1.0, -1)
    assert keep_sure([Slice("a", "1", 100, Interval(0.5, 0.4, 0.6))], 1.0, -1) == []


def test_pages_name_weak_slices_beside_the_advice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    weak = {"column": "site", "label": "<west>", "rows": 1200, "whole": 0.93}
    weak |= {"value": 0.71, "low": 0.65, "high": 0.76}
    content = {
        "metric": "accuracy",
        "less_is_better": False,
        "model": "mlp",
        "num_rows": 2000,
        "num_folds": 4,
        "num_repeats": 1,
        "share": 1.0,
        "screened_share": 1.0,
        **dict.fromkeys(("value", "luck", "detectable", "train_loss", "validation_loss", "curve")),
        "advice": [],
        "axes": [],
        "slices": [weak],
        "num_suspects": 0,
        "num_untried": 0,
        "notes": [],
    }
    text, page = to_markdown(Report(content)), to_html(Report(content))
    show(Report(content))
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "data: more rows of site: <west> (1,200 rows): accuracy 0.71 [0.65, 0.76], of all" in said
    )
    assert "was not measured" in " ".join(text.split())
    assert "more rows of site: &lt;west&gt;" in page
    # It is no advice: nothing is promised, and there is no number to apply.
    assert Report(content).headline().startswith("Nothing that was tried")
    without = Report({**content, "slices": []})
    assert "worst" not in to_markdown(without)
