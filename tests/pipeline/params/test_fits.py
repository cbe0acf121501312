"""`reprise check` knows the columns of the files that `params.yaml` names."""

from pathlib import Path

import polars as pl
import pytest
from ruamel.yaml import YAML

from pipeline.params.check import find_problems
from pipeline.params.source_head import read_head
from stages.common.errors import Problem
from tests.conftest import ROOT

NUM_ROWS = 300


def passengers() -> pl.DataFrame:
    numbers = range(NUM_ROWS)
    return pl.DataFrame(
        {
            "PassengerId": numbers,
            "Survived": [n % 2 for n in numbers],
            "Name": [f"name, {n}" for n in numbers],
            "Fare": [n / 2 for n in numbers],
        }
    )


@pytest.fixture(params=["csv", "parquet", "jsonl"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = tmp_path / f"passengers.{request.param}"
    table = passengers()
    write = {"csv": table.write_csv, "parquet": table.write_parquet, "jsonl": table.write_ndjson}
    write[request.param](path)
    return str(path)


def problems(edits: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    monkeypatch.chdir(ROOT)
    text = Path("params.yaml").read_text(encoding="utf-8")
    for old, new in edits.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return find_problems(YAML(typ="safe").load(text))


def test_own_data_is_held_to_the_whole_file_at_once(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = problems({"data/raw/digits.parquet": source, "label": "Fare"}, monkeypatch)
    assert [problem.key for problem in found] == [
        "prepare.key",
        "prepare.expectations",
        "train.loss.name",
        *(f"evaluate.metrics.{place}" for place in range(4)),
        "evaluate.gates.accuracy",
        "infer.input",
    ]
    said = {problem.key: problem for problem in found}
    assert "null" in said["prepare.key"].allowed
    assert "'id', 'image', 'label'" in said["prepare.expectations"].message
    assert "'Fare' holds numbers with fractions" in said["train.loss.name"].message
    # Not a problem for each column.
    assert "lacks 3 columns" in said["infer.input"].message
    mended = {
        "data/raw/digits.parquet": source,
        "label": "Survived",
        "key: id ": "key: PassengerId ",
        "data/raw/digits.expectations.yaml": "null",
        "data/raw/digits_new.parquet": "null",
    }
    assert problems(mended, monkeypatch) == []


def test_names_that_the_table_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    edits = {
        "target: label": "target: labl",
        "columns: {}": "columns: {imge: exclude}",
        "slices:  ": "slices: [image, nope] ",
        "accuracy: {minimum: 0.95}": "rmse: {maximum: 5}",
    }
    found = problems(edits, monkeypatch)
    assert [(problem.key, problem.suggestion) for problem in found[:2]] == [
        ("prepare.target", "label"),
        ("prepare.columns.imge", "image"),
    ]
    assert {problem.key for problem in found[2:]} == {
        "evaluate.slices.0",
        "evaluate.slices.1",
        "evaluate.gates.rmse",
        # What was the target is a column to learn from now.
        "infer.input",
    }


def test_whole_numbers_may_be_classes_or_amounts(monkeypatch: pytest.MonkeyPatch) -> None:
    edits = {"{name: CrossEntropyLoss}": "{name: MSELoss}"}
    (loss,) = problems(edits, monkeypatch)
    assert loss.key == "train.loss.name"
    assert "10 different whole numbers" in loss.message
    assert "prepare.task" in loss.message
    # When all that depends on the task is for the other one, that one edit comes first.
    edits |= {"  - accuracy\n  - f1_macro\n  - log_loss\n  - roc_auc\n": "  - rmse\n"}
    edits |= {"    accuracy: {minimum: 0.95}": "    rmse: {maximum: 5}"}
    first, *_ = problems(edits, monkeypatch)
    assert (first.key, first.suggestion) == ("prepare.task", "regression")
    assert problems({**edits, "task: auto": "task: regression"}, monkeypatch) == []


def test_slices_by_a_calendar_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 10, 26), eager=True)
    source = str(tmp_path / "days.csv")
    passengers().with_columns(day=days, note=pl.lit("x")).write_csv(source)
    edits = {
        "data/raw/digits.parquet": source,
        "label": "Survived",
        "columns: {}": "columns: {day: {calendar: true}}",
        "  slices: ": "  slices: [Fare, day] ",
    }
    (problem,) = [p for p in problems(edits, monkeypatch) if str(p.key).startswith("evaluate.sl")]
    assert (problem.key, problem.value) == ("evaluate.slices.1", "day")
    assert "'day' is a calendar" in problem.message


def test_a_folder_that_the_model_can_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    edits = {"data/raw/digits.parquet": "data/raw/diabetes.parquet", "label": "progression"}
    found = problems({"data/raw/digits_new.parquet": "/etc/", **edits}, monkeypatch)
    (folder,) = (problem for problem in found if problem.key == "infer.input")
    assert "is a folder" in folder.message
    # A model of images takes one, whatever held them.
    assert problems({"data/raw/digits_new.parquet": "docs/"}, monkeypatch) == []


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("a, b ,c\n1,x,true\n2.5,,false\n", {"a": "number", "b": "text", "c": "boolean"}),
        ("\ufeffa,b\n,1\n3,1_0\n", {"a": "whole", "b": "text"}),
        ("a\n", {"a": "other"}),
        ("Sales\na;b;c\n1;2;x\n", {"a": "whole", "b": "whole", "c": "text"}),
        ("1,x\n9,y\n", {"column_1": "whole", "column_2": "text"}),
        # Left to the stage, which says what is wrong.
        ("a,a\n1,2\n", None),
    ],
)
def test_types_follow_from_the_values_of_a_text_file(
    text: str, kinds: dict[str, str] | None, tmp_path: Path
) -> None:
    file = tmp_path / "table.csv"
    file.write_text(text, encoding="utf-8")
    head = read_head(file)
    assert (None if head is None else head.columns) == kinds


def test_a_damaged_file_is_left_to_the_stage(tmp_path: Path) -> None:
    for name in ("x.parquet", "x.jsonl"):
        (tmp_path / name).write_bytes(b"PAR1 nonsense")
        assert read_head(tmp_path / name) is None


LOG = {"label": "y", "target_transform: ": "target_transform: log1p "}
NUMBERS = [str(50 + n / 8) for n in range(NUM_ROWS - 2)]


@pytest.mark.parametrize(
    ("texts", "said", "smallest"),
    [
        (["-999", ""], "{y: {missing: [-999]}}", None),
        (["-999.0", "?"], "{y: {missing: ['?', -999]}}", None),
        (["#DIV/0!", "-inf"], "{}", None),
        (["-1.500", "3.000"], '{y: {thousands: "."}}', None),
        (["-999", "-2"], "{y: {missing: [-2]}}", "1 row, the smallest -999"),
        (["-999", "-1"], "{}", "2 rows, the smallest -999"),
    ],
)
def test_a_transform_is_checked_by_the_values_that_prepare_reads(
    texts: list[str],
    said: str,
    smallest: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = ["3.000", "7"] * 30 if "thousands" in said else NUMBERS
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["x,y", *(f"1,{y}" for y in [*values, *texts])]), encoding="utf-8")
    edits = {"data/raw/digits.parquet": str(path), "columns: {}": f"columns: {said}"}
    found = [p for p in problems(LOG | edits, monkeypatch) if p.key == "prepare.target_transform"]
    if smallest is None:
        assert found == []
    else:
        assert smallest in found[0].message


@pytest.mark.parametrize("texts", [["22,5", "7"], ["22.5", "?"], ["1 200 €", "7 €"]])
def test_texts_of_numbers_are_no_classes_for_sure(
    texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"x": range(100), "y": texts * 50}).write_parquet(path)
    said = "{y: {unit: '€'}}" if "€" in texts[0] else "{y: {missing: ['?']}}"
    edits = {"data/raw/digits.parquet": str(path), "columns: {}": f"columns: {said}"}
    assert "prepare.target_transform" not in [p.key for p in problems(LOG | edits, monkeypatch)]
