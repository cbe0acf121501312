"""`reprise show`: the last run as one page that works offline."""

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.metrics.gates import Verdict
from pipeline.metrics.metrics import format_value
from pipeline.report.show.card import card_sections, inline
from pipeline.report.show.outputs import RECORDS, TABLES, Run, read_run
from pipeline.report.show.pictures import MAX_STRIPS
from pipeline.report.show.show import draw_run
from stages.common.errors import UserError
from stages.common.files import read_json, write_json
from stages.evaluate.outputs.markdown import code, one_line, plain, table
from tests.conftest import Project
from tests.support.names import NAMES


def sections_of(page: str) -> dict[str, str]:
    """The HTML of each section, by its anchor."""
    return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.DOTALL))


def test_the_page_of_the_example(example: Project, tmp_path: Path) -> None:
    output = tmp_path / "pages" / "show.html"
    done = example.run("reprise", "show", "--output", str(output))
    assert done.stdout == f"wrote {output}\n"
    refused = example.run("reprise", "show", "--output", "/proc/x.html", ok=False).stderr
    assert refused == "--output /proc/x.html can't be written: No such file or directory\n"
    page = output.read_text(encoding="utf-8")
    # It loads nothing and runs nothing; the picture of mistakes, where there are any, is inside.
    assert "http" not in page
    assert "<script" not in page
    assert page.count("src=") == page.count('src="data:image/png;base64,') <= 1
    assert "url(" not in page
    head, sections = page.split("<section")[0], sections_of(page)
    assert "<h1>label: classification by cnn</h1>" in head
    assert '<div class="verdict pass">✓ the gate passed' in head
    assert "not here" not in head
    assert list(sections) == [
        *("metrics", "training", "confusion", "classes", "probabilities", "columns"),
        *("mistakes", "card", "lineage"),
    ]
    known = read_json(example.path / "data/evaluate/intervals.json")
    for name in ("accuracy", "log_loss"):
        each = known["metrics"][name]
        ends = f"{format_value(each['low'])} to {format_value(each['high'])}"
        assert re.search(
            rf">{name}</span></td>.*?>{re.escape(ends)}</span></td>", sections["metrics"]
        )
    assert "over 3 seeds" in sections["metrics"]
    assert f"that of {known['coverage']['value']:.1%}" in sections["metrics"]
    assert sections["training"].count("<svg") == 2
    assert "kept: epoch" in sections["training"]
    assert sections["confusion"].count('class="right"') == 10
    assert sections["classes"].count("<circle") == 10
    assert "Calibration" in sections["probabilities"]
    assert "<summary>Limits</summary>" in sections["card"]
    machine = read_json(example.path / "data/train/machine.json")
    assert machine["architecture"] in sections["lineage"]
    assert "data/raw/digits.parquet" in sections["lineage"]


def run_named(name: str, **changed: Any) -> Run:
    """A run of two classes, or of values, in which every text is `name`."""
    small = {"rows": "9", "small": "yes", "rmse": "2", "low": "1", "high": "3"}
    loss = [{"epoch": str(n), "train": "1", "validation": f"{n}"} for n in range(3)]
    shares = {"recall": "0.5", "recall_low": "0.4", "recall_high": "0.6", "precision": ""}
    tables = {
        "train/plots/loss.csv": loss,
        "evaluate/slices.csv": [{"column": name, "slice": name, **small}],
        "evaluate/classes.csv": [{"class": name, "rows": "9", **shares}],
        "evaluate/mistakes.csv": [{"key": name, "target": name, "prediction": name}],
        "evaluate/plots/confusion.csv": [{"actual": name, "predicted": name}],
        "evaluate/plots/importance.csv": [
            {"column": name, "importance": "1", "deviation": "0.1"},
            {"column": "b", "importance": "nan", "deviation": ""},
        ],
        "evaluate/plots/predicted.csv": [{"actual": "1", "predicted": "2"}],
        "evaluate/plots/residuals.csv": [{"predicted": "2", "residual": "-1"}],
    }
    fields: dict[str, Any] = {
        "metrics": {"evaluate": {"rmse": 2.5}, "train": {"kept_epoch": 1, name: 2.0}},
        "gates": (Verdict("rmse", 2.5, "at most 2", "fail", name),),
        "locked": {
            "prepare": {
                "cmd": name,
                "deps": [{"path": name, "md5": "0" * 32}],
                "params": {"params.yaml": {"prepare": {"source": name}}},
            }
        },
        "params": {"prepare": {"source": name}},
        "tables": tables,
        "records": {
            "prepare/schema.json": {"target": {"name": name, "task": "regression"}, "features": []},
            "train/model.json": {"name": "mlp"},
        },
        "card": f"# {plain(name)}\n\n## Data\n\n{plain(name)} and {code(name)}\n",
    }
    return Run(**{**fields, **changed})


def test_names_are_text_of_the_page() -> None:
    elements: list[str] = []
    for name in ["plain", *NAMES]:
        page = draw_run(run_named(name)).partition("</style>")[2]
        # What a cell looks like follows from its text; a long one is not another element.
        found = [re.sub('(class|aria-label)="[^"]*"', "", e) for e in re.findall("<[^>]*>", page)]
        elements = elements or found
        assert found == elements, name
        assert "\u202e" not in page


def test_a_run_of_values_has_its_own_pictures() -> None:
    sections = sections_of(draw_run(run_named("a")))
    assert {"residuals", "slices", "columns"} <= set(sections)
    assert "probabilities" not in sections
    assert sections["residuals"].count("<svg") == 2
    assert 'class="hollow"' in sections["slices"]
    assert "too few to judge" in sections["slices"]
    assert "the upright line is all test rows, 2.5000" in sections["slices"]
    # Where there is no room for all, the worst have it: here the largest errors of enough rows.
    first, last = {"column": "a", "slice": "", "rows": "90", "small": "no"}, {"low": "", "high": ""}
    rows = [{**first, "slice": f"s{n}", "rmse": str(n % 50 + 1), **last} for n in range(60)]
    rows[0] |= {"small": "yes", "rmse": "99"}
    evaluated = {"evaluate": {"rmse": 2.5, "worst_slice_rmse": 50.0}}
    page = draw_run(run_named("a", tables={"evaluate/slices.csv": rows}, metrics=evaluated))
    shown = re.findall(r"</code>: (s\d+)", sections_of(page)["slices"])
    assert len(shown) == MAX_STRIPS
    assert "s49" in shown
    assert {"s0", "s1", "s50"}.isdisjoint(shown)
    # What is no number is no bar.
    assert sections["columns"].count("<rect") == 1
    # Of many classes there is no matrix, but those that are confused.
    pairs = [{"actual": str(n), "predicted": str(n + n % 2)} for n in range(40)]
    many = draw_run(run_named("a", tables={"evaluate/plots/confusion.csv": pairs}))
    assert "confused most" in sections_of(many)["confusion"]


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stage = "stages: {evaluate: {cmd: x, metrics: [data/evaluate/metrics.json]}}"
    Path("dvc.yaml").write_text(stage)
    Path("params.yaml").write_text("evaluate: {metrics: [r2], gates: {r2: {not_worse_by: 0.1}}}")
    with pytest.raises(UserError, match="run 'dvc repro'"):
        read_run()
    Path("data/evaluate").mkdir(parents=True)
    write_json(Path("data/evaluate/metrics.json"), {"r2": 0.5})
    page = unescape(draw_run(read_run()))
    for path in (*TABLES, *RECORDS):
        assert (f"data/{path}" in page) == ("replicas" not in path)
    assert "'dvc repro' makes them" in page
    assert "the gate can't be told" in page
    assert "'reprise gate' judges it" in page
    # A recorded run, and parameters that have been edited since.
    locked = {"evaluate": {"params": {"params.yaml": {"evaluate.metrics": ["mae"]}}}}
    Path("dvc.lock").write_text(f"stages: {locked}")
    page = unescape(draw_run(read_run()))
    assert "edited since this run (evaluate.metrics)" in page
    assert "'dvc pull' brings" in page


@pytest.mark.parametrize("name", NAMES)
def test_names_of_the_model_card_are_text(name: str) -> None:
    def as_read(markup: str) -> str:
        return unescape(re.sub("</?code>", "", markup))

    assert as_read(inline(plain(name))) == one_line(name)
    assert as_read(inline(code(name))).strip() == one_line(name).strip()
    text = f"# Model card: {plain(name)}\n\n## Data\n\n"
    text += table(("class", plain(name)), [(code(name), "1")]) + f"\n\n- {plain(name)}\n"
    drawn = card_sections(text)["Data"]
    cells = [
        as_read(re.sub("</?span>", "", cell)).strip()
        for cell in re.findall("<t[hd](?: [^>]*)?>(.*?)</t[hd]>", drawn)
    ]
    assert cells == ["class", one_line(name).strip(), one_line(name).strip(), "1"]
    elements = {"div", "table", "thead", "tbody", "tr", "th", "td", "span", "code", "ul", "li"}
    assert set(re.findall("<([a-z]+)", drawn)) == elements
    attributes: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda _, found: attributes.extend(name for name, _ in found)  # type: ignore[method-assign]
    parser.feed(drawn)
    assert set(attributes) == {"class", "data-column"}
