"""One reading of files: what prepare stops at is what new rows have set aside, and nothing else."""

import json
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import torch

from stages.common.errors import UserError
from stages.features.columns import as_boolean, as_numeric
from stages.features.schema import FeatureKind, Moments, Statistics
from stages.formats import chunk
from stages.formats.read import read_chunks
from stages.infer.write import write_predictions
from stages.model.predictor import Predictor
from tests.support.readings import assert_one_reading, read_new_rows, schema_of, stops
from tests.support.tables import read_table


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# A file whose lines 3 and 5 are damaged: the others are rows 0, 2 and 4.
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ('1,"a\\" b",p', "line {}, column 3: text follows the quote that closes this field"),
        ('1,"screen 15,p', "line {}, column 3: "),
        ("1,x", "line {} has 2 fields, and the header 3"),
        ("1,x,p,q", "line {} has 4 fields, and the header 3"),
        ("# no row", "line {} has 1 field, and the header 3 (a comment?)"),
        ("1,a\0b,p", "line {}: a NUL byte stands in column 4; remove it"),
        ("1,\x81t,p", "line {}: the byte 0x81 in column 3 is no UTF-8: save the file as UTF-8"),
    ],
)
def test_a_damaged_line_is_named_and_its_neighbours_keep_their_values(
    tmp_path: Path, wrong: str, says: str
) -> None:
    lines = ["k,a,b", "0,x,0", wrong, "2,y,2", wrong, "4,z,4", ""]
    path = written(tmp_path / "t.csv", "\n".join(lines).encode("latin-1"))
    texts, damaged = assert_one_reading(path, ["k", "a", "b"])
    assert texts.rows() == [("0", "x", "0"), ("2", "y", "2"), ("4", "z", "4")]
    assert [each.row for each in damaged] == [1, 3]
    for each, line in zip(damaged, (3, 5), strict=True):
        assert each.reason.startswith(says.format(line))
    said = stops(path)
    assert said.startswith(f"cannot read {path}: 2 lines are damaged: {damaged[0].reason}; ")
    assert said.endswith(f"{damaged[1].reason}; correct them in the file")


def test_a_quote_that_swallows_rows_costs_its_own_row(tmp_path: Path) -> None:
    lines = ["k,a,b", *(f"{row},screen,{row}" for row in range(200)), ""]
    lines[11], lines[41] = '10,"screen 15,10', '40,screen 15",40'
    texts, damaged = assert_one_reading(
        written(tmp_path / "t.csv", "\n".join(lines)), ["k", "a", "b"]
    )
    assert texts["k"].to_list() == [str(row) for row in range(200) if row != 10]
    assert texts["a"][39] == 'screen 15"'
    (only,) = damaged
    assert only.reason == (
        "line 12, column 4: the quote that opens this field closes only after whole rows"
    )


@pytest.mark.parametrize("width", [1, 2])
def test_empty_lines_are_no_rows_but_of_one_column(tmp_path: Path, width: int) -> None:
    names, row = (["a"], "1") if width == 1 else (["a", "b"], "1,2")
    path = written(tmp_path / "t.csv", f"\n{','.join(names)}\n{row}\n\n{row}\n \n")
    texts, damaged = assert_one_reading(path, names)
    assert damaged == []
    assert texts["a"].to_list() == (["1", "1"] if width == 2 else ["1", None, "1", None])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("x;y\n1,2,3\n4,5,6\n7,8,9\n", "line 1 has 1 field, and those from line 2 on 3"),
        ("# by us, now\na,b,c\n1,2,3\n4,5,6\n7,8,9\n", "line 1 has 2 fields, and those from"),
        ("A,b,a\n1,2,1\n", "differ in their case alone, 'A', 'a': 1, 3, which hold the same in"),
        ("a,b\nr1,1,2\nr2,3,4\nr3,5,6\n", "its header has 2 fields, and the lines below it 3"),
        ("a,b,a\n1,2,3\n", "more than one column named 'a': columns 1, 3"),
        (b"a,\x81\n1,2\n", "the byte 0x81 in column 3 is no UTF-8"),
        ('"a,b\n1,2\n', "line 1, column 1: the quote never closes"),
    ],
)
def test_a_header_that_is_none_is_told_by_both(
    tmp_path: Path, content: str | bytes, says: str
) -> None:
    path = written(tmp_path / "t.csv", content)
    assert says in stops(path)
    with pytest.raises(UserError) as caught:
        read_new_rows(path, ["a"])
    assert caught.value.problems[0].message == stops(path)


TABLE = pl.DataFrame({"a": ["x", "é", " y "], "b": ["1", "2", "3"], "c": ["NA", " ", ""]})
READ = [("x", "1", "NA"), ("é", "2", None), ("y", "3", None)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_one_table_whatever_the_bytes_of_its_text(
    tmp_path: Path, suffix: str, encoding: str, end: str
) -> None:
    path = tmp_path / f"t{suffix}"
    if suffix == ".jsonl":
        path.write_bytes(TABLE.write_ndjson().replace("\n", end).encode(encoding))
    else:
        separator = "\t" if suffix == ".tsv" else ","
        content = TABLE.write_csv(separator=separator).replace("\n", end)
        path.write_bytes(content.encode(encoding))
    texts, damaged = assert_one_reading(path, ["a", "b", "c"])
    notes = read_new_rows(path, ["a", "b", "c"])[3]
    assert texts.rows() == READ
    assert damaged == []
    is_wide = encoding.startswith("utf-16")
    assert notes == [f"note: {path} is UTF-16, and read as such"] * is_wide


def test_names_with_quotes_and_line_breaks_are_read_by_both(tmp_path: Path) -> None:
    names = ['size 3.5" disk', "patient's, age", "two\nlines", " blank ", '"']
    path = tmp_path / "t.csv"
    pl.DataFrame({name: ["1", "2"] for name in names}).write_csv(path)
    read = [name.strip() for name in names]
    assert read_table(path, "prepare.source").columns == read
    assert read_new_rows(path, read)[0].columns == read


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_whole_numbers_keep_their_digits(tmp_path: Path, suffix: str) -> None:
    numbers = [2**53, 2**53 + 1, 2**63 + 1, None, 10**30 + 1]
    lines = [f"{row},{'' if n is None else n}" for row, n in enumerate(numbers)]
    content = "k,a\n" + "\n".join(lines)
    if suffix == ".jsonl":
        content = "\n".join(json.dumps({"k": row, "a": n}) for row, n in enumerate(numbers))
    path = written(tmp_path / f"t{suffix}", content)
    assert read_table(path, "prepare.source")["a"].to_list() == numbers
    (texts, *_) = read_new_rows(path, ["k", "a"])
    assert texts["a"].to_list() == [None if n is None else str(n) for n in numbers]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_number_is_no_category_that_differs_beyond_a_float(tmp_path: Path, suffix: str) -> None:
    schema = schema_of(["a"])
    known = schema.features[0].model_copy(update={"categories": [str(2**53), "7"]})
    schema = schema.model_copy(update={"features": [known]})
    values: list[object] = [2**53 + 1, 2**53, 7, "7.0", "007"]
    content = "a\n" + "\n".join(str(value) for value in values)
    if suffix == ".jsonl":
        content = "\n".join(json.dumps({"a": value}) for value in values)
    (part,) = read_chunks(written(tmp_path / f"t{suffix}", content), schema, "infer.input")
    assert part.table["a"].to_list() == [str(2**53 + 1), str(2**53), "7", "7", "007"]


def test_infinite_numbers_are_gaps_and_counted(tmp_path: Path) -> None:
    csv = written(tmp_path / "t.csv", "a\ninf\n1.5\n-inf\ninf\n1e999\n")
    pl.DataFrame({"a": [float("inf")] * 3 + [1.5, float("-inf")]}).write_parquet(
        tmp_path / "t.parquet"
    )
    for path in (csv, tmp_path / "t.parquet"):
        said: list[str] = []
        read_table(path, "prepare.source", said.append)
        assert said == ["note: 'a' holds 1 '-inf', 3 'inf': taken as gaps"]
        assert read_new_rows(path, ["a"], "numeric")[3] == said


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"a": 1', "it is no JSON record: Expecting ',' delimiter in column 8"),
        ("[1, 2]", "it is no JSON record {…}, but [1, 2]"),
        ('{"a": NaN}', "NaN is no JSON: write null for a gap"),
        ('{"a": 1e999}', "1e999 is too large for a number"),
        ('{"a": 1, "a": 2}', "it has more than one value named 'a'"),
        ('{"a": "\\u0000"}', "a NUL stands in a text"),
        ('{"a": "\\ud800"}', "half a character stands in a text"),
        ('{"a": ' + "9" * 50 + "}", "has too many digits for a number: write it as a text"),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
        ("'a': 1", "it is no JSON record"),
    ],
)
def test_a_damaged_line_of_json_is_named(tmp_path: Path, line: str, says: str) -> None:
    content = f'\ufeff{{"a": 1}}\n\n{line}\n{{"a": 2}}\n'
    texts, damaged = assert_one_reading(written(tmp_path / "t.jsonl", content), ["a"])
    assert texts["a"].to_list() == ["1", "2"]
    (only,) = damaged
    assert only.row == 1
    assert only.reason.startswith("line 3: ")
    assert says in only.reason


def test_json_lines_whose_kinds_differ_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", '{"a": 1}\n{"a": true}\n{"a": [1]}\n')
    assert "'a' is a number or a text in line 1 and true or false in line 2" in stops(path)
    texts, _, damaged, _ = read_new_rows(path, ["a"])
    assert texts["a"].to_list() == ["1", "true"]
    assert [(each.row, each.column, each.reason) for each in damaged] == [
        (2, "a", "[1] is not one value")
    ]


@pytest.mark.parametrize("kind", ["numeric", "boolean"])
@pytest.mark.parametrize("value", [date(2024, 1, 2), timedelta(seconds=3)])
def test_dates_and_durations_are_no_numbers_for_new_rows_either(
    tmp_path: Path, kind: FeatureKind, value: object
) -> None:
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": [value] * 3}).write_parquet(path)
    with pytest.raises(UserError, match=r"the column 'a' is of type .*, not "):
        read_new_rows(path, ["a"], kind)
    read = as_numeric if kind == "numeric" else as_boolean
    with pytest.raises(UserError, match=r"the column 'a' is of type .*, not "):
        read(read_table(path, "prepare.source")["a"], "prepare.columns.a")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_damaged_row_moves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 8)
    # This model's answer is the place at which it was given a row.
    model = torch.nn.Module()
    model.forward = lambda batch: torch.arange(len(batch["numeric"]))[:, None].float()  # type: ignore[method-assign]
    schema = schema_of(["a"], "numeric").model_copy(update={"key": "k"})
    moments = Moments(mean=0.0, deviation=1.0)
    statistics = Statistics(numeric={"a": moments}, image=[], target=moments)
    predictor = Predictor(model, schema, statistics)
    rows = [f"{row},{'tall' if row in (2, 13) else row}" for row in range(20)]
    table = pl.read_csv(("k,a\n" + "\n".join(rows)).encode(), infer_schema=False)
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        table.write_parquet(path)
    elif suffix == ".csv":
        written(path, table.write_csv().replace("\n5,5\n", '\n5,"5\n'))
    else:
        written(path, table.write_ndjson().replace('{"k":"5","a":"5"}', '{"k":"5","a":'))
    summary = write_predictions(path, tmp_path / "out.parquet", None, predictor, "infer.input")
    found = pl.read_parquet(tmp_path / "out.parquet")
    lost = {2, 13} if suffix == ".parquet" else {2, 5, 13}
    assert summary.num_damaged == len(lost)
    kept = [row for row in range(20) if row not in lost]
    assert found["k"].cast(pl.Int64).to_list() == kept
    assert found["prediction"].to_list() == [row % 8 for row in kept]
