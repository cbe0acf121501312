"""The report on a change, on a page and in a comment."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from pipeline.report.build import Report
from pipeline.report.differences import StageChange
from pipeline.report.html import as_page
from pipeline.report.markdown import as_markdown
from pipeline.report.page.markup import Code
from stages.common.files import read_json
from tests.conftest import ROOT, Project, copy_project
from tests.support.names import NAMES
from tests.support.pipeline.predictions import predictions
from tests.support.samples import SMALL, mixed_table, set_params


def tags_of(text: str) -> list[str]:
    """What a page would take for HTML in a Markdown text, in its order."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inner = [each for token in tokens for each in (token, *(token.children or []))]
    return [each.content.strip() for each in inner if each.type.startswith("html_")]


def elements_of(page: str) -> list[str]:
    """The elements of a page with their attributes, in its order."""
    found = re.findall("<[^>]*>", page.partition("</style>")[2])
    # What a cell looks like follows from the length of its text.
    return [re.sub('class="[^"]*"', "", each) for each in found]


def test_names_are_text_in_both_pages() -> None:
    """A base, a parameter, a column and a class of any name."""
    elements: list[str] = []
    for name in ["plain", *NAMES]:
        change = {"shift": 1.0, "spread": None, "empty": [0, 0], "new": None, "gone": None}
        report = Report(
            base=name,
            commit="0" * 40,
            metrics={},
            params={name: (name, 1)},
            changes=(StageChange("train", (name, Code(name))),),
            comparison={},
            curves={},
            data={
                "rows": [{"split": "train", "before": 1, "after": 1}],
                "columns": [{"column": name, "before": None, "after": "numeric"}],
                "classes": {"came": [name], "went": []},
                "drift": [{"column": name, "drifted": False, **change}],
            },
            missing=(f"the predictions of {name} are not here",),
        )
        text, page = as_markdown(report), as_page(report)
        elements = elements or elements_of(page)
        tokens = MarkdownIt("commonmark").enable("table").parse(text)
        kinds = [token.type for token in tokens]
        # As many of each as a name without any sign has.
        counts = [kinds.count(k) for k in ("heading_open", "table_open", "tr_open", "td_open")]
        assert counts == [1, 5, 11, 20], name
        assert not {"bullet_list_open", "fence", "html_block", "hr"} & set(kinds), name
        inner = {each.type for token in tokens for each in token.children or []}
        assert inner <= {"text", "code_inline", "strong_open", "strong_close", "text_special"}, name
        assert elements_of(page) == elements, name
        assert "\u202e" not in text + page


def test_it_fits_a_comment_whatever_changed() -> None:
    def report(num: int) -> str:
        names = [f"train.a|{'very' * 9}<details>long.{i}" for i in range(num)]
        return as_markdown(
            Report(
                base="main",
                commit="0" * 40,
                metrics={},
                params=dict.fromkeys(names, (1, "x" * 400)),
                changes=(StageChange("train", tuple(names)),),
                comparison={},
                curves={},
            )
        )

    assert report(20).count("| 1 | ") == 20
    assert "a\\|very" in report(1)
    assert not tags_of(report(1))
    for num in (500, 20_000):
        text = report(num)
        assert len(text) < 65_536
        assert "more are in report.html" in text
        opened = [tag for tag in tags_of(text) if tag.startswith("<details><summary>")]
        assert tags_of(text) == [tag for one in opened for tag in (one, "</details>")]


def test_the_report_of_a_branch(shorter: Project, tmp_path: Path) -> None:
    clone = shorter
    said = clone.run("reprise", "report").stdout
    assert said == "wrote report.md\nwrote report.html\n"
    text = (clone.path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("### This change is worse in accuracy")
    assert "the merge base with main" in text
    assert "| `train.epochs` | 30 | 1 |" in text
    assert "| train | `train.epochs` |" in text
    assert "Means over seeds, 3 before and 3 after" in text
    assert "**This change**" in text
    page = (clone.path / "report.html").read_text(encoding="utf-8")
    # It loads nothing, and its pictures are inside.
    assert "http" not in page
    assert "src=" not in page
    assert page.count('role="img"') == 2
    assert page.count('class="strips"') == 2
    assert '<small class="worse">worse</small>' in page
    assert "Validation accuracy</figcaption>" in page
    assert page.count('class="matrix"') == 2
    assert clone.run("git", "status", "--porcelain").stdout == ""

    # Nothing pulled: it says so, and gives what it can.
    far = Project(tmp_path / "far")
    clone.run("git", "clone", "--quiet", str(clone.path), str(far.path))
    far.run("dvc", "remote", "add", "--quiet", "--default", "nearby", str(tmp_path / "remote"))
    far.run("reprise", "report", "--base", "origin/main", "--output", "pages")
    # As a reader sees it: names and messages are text in the page.
    text = (far.path / "pages/report.md").read_text(encoding="utf-8").replace("\\", "")
    text = text.replace("&amp;", "&")
    assert "No verdict" in text
    assert "&& dvc fetch --all-branches' brings them" in text
    commit = far.run("git", "rev-parse", "origin/main").stdout
    assert f"'git branch base {commit[:10]} && dvc fetch" in text
    assert "| accuracy | " in text.split("**Gates: ")[1]
    assert "| train | kept_epoch |" in text
    said = far.run("reprise", "report", "--base", "nowhere", ok=False).stderr
    assert "there is no revision 'nowhere'" in said


@pytest.mark.soak
def test_the_report_of_a_change_between_replicas(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    project = copy_project(folder)
    table = mixed_table(600)
    table.write_parquet(folder / "data/raw/table.parquet")
    learns = {"train.epochs": 8, "train.optimizer": {"name": "Adam", "lr": 0.02}}
    set_params(project, {**SMALL, **learns, "train.replicas": 3})
    printed = project.run("dvc", "repro", "evaluate").stdout
    project.commit("three replicas")
    assert "replica 2 │ best epoch" in printed
    assert "mean ± deviation over 3 seeds: accuracy " in printed
    card = (folder / "data/evaluate/card.md").read_text(encoding="utf-8")
    assert "3 seeds were trained." in card
    found = read_json(folder / "data/evaluate/intervals.json")["metrics"]["accuracy"]["seeds"]
    assert len(found["values"]) == 3
    assert found["values"][0] == read_json(folder / "data/evaluate/metrics.json")["accuracy"]
    assert found["deviation"] == pytest.approx(np.std(found["values"], ddof=1), abs=1e-6)
    files = sorted((folder / "data/evaluate/replicas").iterdir())
    assert [file.name for file in files] == ["0.parquet", "1.parquet", "2.parquet"]
    served = folder / "data/evaluate/predictions.parquet"
    assert files[0].read_bytes() == served.read_bytes() != files[1].read_bytes()

    project.run("git", "switch", "--quiet", "--create", "worse")
    set_params(project, {"train.optimizer": {"name": "SGD", "lr": 1e-4}})
    project.run("dvc", "repro", "evaluate")
    project.commit("too slow")
    project.run("reprise", "report", "--base", "main")
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert text.startswith("### This change is worse in ")
    assert text.index("**This change** (rows and seeds)") < text.index(
        "**This model on these rows**"
    )
    assert "Means over seeds, 3 before and 3 after" in text
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>This change</h2>" in page
    assert "<h2>This model on these rows</h2>" in page


def test_it_can_be_asked_for_by_hand(tmp_path: Path) -> None:
    before, after = predictions([True] * 20), predictions([True] * 19 + [False])
    before.write_parquet(tmp_path / "before.parquet")
    after.write_parquet(tmp_path / "after.parquet")
    files = [str(tmp_path / "before.parquet"), str(tmp_path / "after.parquet")]
    done = subprocess.run(
        [sys.executable, "-m", "stages.compare.compare", *files, "accuracy"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(done.stdout)["flips"]["broken"] == 1
