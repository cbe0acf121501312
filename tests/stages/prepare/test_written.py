"""Numbers as people write them and words for gaps: decided over all rows, and read alike after."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from ruamel.yaml import YAML

from pipeline.serve.bundle import load_bundle
from pipeline.serve.codec.problems import RequestError
from stages.common.config import validate
from stages.common.errors import UserError
from stages.features.schema import Feature, read_schema
from stages.features.spelling import WRITINGS, as_number, number_pattern, to_plain, with_unit
from stages.features.written import read_numbers
from stages.formats.read import read_chunks
from stages.infer.rejected import encode_whole
from stages.model.predictor import load_predictor
from stages.prepare.columns.doubts import find_doubts
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.columns.written import find_writing, read_written, with_written
from stages.prepare.params import PrepareParams
from stages.prepare.table.dots import signed_columns
from stages.prepare.table.long_table import apply_writing
from stages.prepare.table.open_table import open_table
from stages.prepare.table.sample import take_sample
from tests.support.samples import prepare_params, run_stages, small_project
from tests.support.tables import read_table

KEY = "prepare.source"


@pytest.mark.parametrize(
    ("texts", "writing", "values"),
    [
        (["1,5", "2", None], (",", None), [1.5, 2.0]),
        (["1,234.5", "999"], (".", ","), [1234.5, 999.0]),
        (["1.299,99", "-0,5"], (",", "."), [1299.99, -0.5]),
        (["1.234", "1.234.567"], (",", "."), [1234.0, 1234567.0]),
        (["1 234", "5"], (".", " "), [1234.0, 5.0]),
        (["1\u202f234,5", "12\xa0345"], (",", " "), [1234.5, 12345.0]),
        (["1'234.5", "1’234"], (".", "'"), [1234.5, 1234.0]),
        (["0,123", "1,234"], (",", None), [0.123, 1.234]),
        (["1,2345", "1,234"], (",", None), [1.2345, 1.234]),
        (["1,5e3", ",5"], (",", None), [1500.0, 0.5]),
        # Numbers as programs write them, in a column of texts.
        (["1.5", "2"], (".", None), [1.5, 2.0]),
        (["61.0", "-.5e3"], (".", None), [61.0, -500.0]),
        # Not numbers, names.
        (["1,5", "$2"], None, []),
        (["1,5", "1.5"], None, []),
        (["12,34,567.5"], None, []),
        (["01,5", "1,5"], None, []),
        (["1,5,2", "3"], None, []),
        ([None, None], None, []),
    ],
)
def test_a_way_of_writing_is_one_that_every_text_fits(
    texts: list[str | None], writing: tuple[str, str | None] | None, values: list[float]
) -> None:
    column = pl.Series("x", texts, dtype=pl.String)
    assert find_writing(column) == writing
    if writing is not None:
        assert read_numbers(column, *writing).drop_nulls().to_list() == values
        filled = [text for text in texts if text is not None]
        assert [as_number(text, *writing) for text in filled] == values


@pytest.mark.parametrize("text", ["1,234", "1.5", "1 234,5", "-1'234", "+.5", "1.", "", "é", "1e5"])
def test_polars_and_python_read_one_text_alike(text: str) -> None:
    for writing in WRITINGS:
        plain = to_plain(text, *writing)
        assert pl.Series([text]).str.contains(number_pattern(*writing))[0] is (plain is not None)
        (number,) = read_numbers(pl.Series([text]), *writing)
        assert number == (None if plain is None else float(plain))


def test_numbers_that_may_be_read_in_two_ways_are_asked_about_with_both_lines() -> None:
    table = pl.DataFrame({"price": ["5", "1,234", "2,345"], "y": ["a", "b", "a"]})
    with pytest.raises(UserError) as caught:
        read_written(table, prepare_params())
    (problem,) = caught.value.problems
    assert problem.key == "prepare.columns.price"
    assert "'1,234' (row 1)" in problem.message
    assert "1.234: columns: {price: {kind: numeric, decimal: ','}}" in problem.message
    assert '1234: columns: {price: {kind: numeric, thousands: ","}}' in problem.message
    for said, values in (
        ({"decimal": ","}, [5.0, 1.234, 2.345]),
        ({"thousands": ","}, [5, 1234, 2345]),
    ):
        read, _, lines = read_written(table, prepare_params(columns={"price": said}))
        assert read["price"].to_list() == values
        assert lines == []
    # A column of categories is nobody's number.
    read, _, _ = read_written(table, prepare_params(columns={"price": "categorical"}))
    assert read["price"].to_list() == ["5", "1,234", "2,345"]
    with pytest.raises(
        UserError, match=r"1 value .* no number written as 1 234.5, .*'1,234' \(row 1"
    ):
        read_written(table[:2], prepare_params(columns={"price": {"thousands": " "}}))


def test_texts_that_are_plain_numbers_are_numbers_and_said() -> None:
    table = pl.DataFrame({"x": ["61.25", "7", None], "zip": ["01", "2", "3"], "y": ["a", "b", "a"]})
    read, written, lines = read_written(table, prepare_params(columns={"zip": "categorical"}))
    assert read["x"].to_list() == [61.25, 7.0, None]
    assert read["zip"].to_list() == ["01", "2", "3"]
    assert (written["x"].decimal, written["x"].thousands) == (".", None)
    assert lines == [
        "note: 'x' holds numbers as texts: '61.25' (row 0) is 61.25; if that is wrong, "
        "columns: {x: categorical}"
    ]


def test_ids_and_groups_of_digits_stay_texts() -> None:
    ids = ["12345678901234567890", "12345678901234567891", "7"]
    table = pl.DataFrame({"id": ids, "g": ["1.1", "1.10", "1.2"], "y": ["a", "b", "a"]})
    read, _, lines = read_written(table, prepare_params(structure={"group": "g"}))
    assert read.rows() == table.rows()
    assert lines == []


UNITS = [
    ("€", ".", ",", ["1,861 €", "€5", "-€ 3", "€-3", "5€"], [1861.0, 5.0, -3.0, -3.0, 5.0]),
    ("$", ".", ",", ["$3", "-$1,200.5", "$"], [3.0, -1200.5, None]),
    ("km", ",", " ", ["285 640 km", "1,5\xa0km", "7"], [285640.0, 1.5, None]),
    ("l/100 km", ".", None, ["5.6 l/100 km", "5.6 km"], [5.6, None]),
    ("$…/mo", ".", ",", ["$345/mo", "-$1,200.5 /mo", "$345", "345/mo"], [345, -1200.5, None, None]),
    ("%", ".", None, ["15.2%", "3 % %", "nan%"], [15.2, None, float("nan")]),
]


@pytest.mark.parametrize(("unit", "decimal", "thousands", "texts", "values"), UNITS)
def test_a_unit_is_taken_away_from_each_number(
    unit: str, decimal: str, thousands: str | None, texts: list[str], values: list[float | None]
) -> None:
    found = read_numbers(pl.Series(texts), decimal, thousands, unit)
    assert found.equals(pl.Series(values, dtype=pl.Float64))
    alone = [as_number(text, decimal, thousands, unit) for text in texts]
    assert pl.Series(alone, dtype=pl.Float64).equals(found)


def test_a_number_of_json_gets_the_unit_of_its_column() -> None:
    for unit in ("€", "$…/mo"):
        assert as_number(with_unit("1.5", unit), ".", None, unit) == 1.5


def test_the_signs_beside_a_unit_are_found_or_asked_for() -> None:
    table = pl.DataFrame({"x": ["1.299,5 €", "3€", None], "z": ["1,234 $", "5 $", "6 $"]})
    params = {"x": {"unit": "€"}, "z": {"unit": "$", "thousands": ","}}
    read, written, lines = read_written(table, prepare_params(columns=params))
    assert read["x"].to_list() == [1299.5, 3.0, None]
    assert read["z"].to_list() == [1234, 5, 6]
    assert (written["x"].decimal, written["x"].thousands, lines) == (",", ".", [])
    with pytest.raises(UserError, match=r"thousands: \",\", unit: '\$'}"):
        read_written(table, prepare_params(columns={"z": {"unit": "$"}}))
    with pytest.raises(UserError, match=r"2 values .* no numbers written as 1.234,5 £.*'1.299,5 €"):
        read_written(table, prepare_params(columns={"x": {"unit": "£", "thousands": "."}}))


def test_signs_are_for_numbers_and_differ() -> None:
    section = prepare_params().model_dump()
    signs: list[dict[str, str]] = [{"decimal": ",", "thousands": ","}, {"unit": "5"}]
    for said in ({"kind": "boolean", "decimal": ","}, {"kind": "text", "unit": "€"}, *signs):
        with pytest.raises(UserError):
            validate(PrepareParams, {**section, "columns": {"x": said}}, "prepare")


def table_of(folder: Path, lines: list[str]) -> pl.DataFrame:
    path = folder / "t.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_table(path, KEY)


def test_words_that_are_declared_are_gaps_and_the_others_make_the_type(tmp_path: Path) -> None:
    lines = ["a,b,c,y", "1,NA,true,u", "?,NO,?,v", "-999,SE,false,u", "4,?,,v", "-999.0,x,true,u"]
    params = prepare_params(missing=["?", -999], columns={"b": {"missing": ["x"]}})
    table, written, said = read_written(table_of(tmp_path, lines), params)
    assert table["a"].to_list() == [1.0, None, None, 4.0, None]
    assert table["b"].to_list() == ["NA", "NO", "SE", "?", None]
    assert table["c"].to_list() == [True, None, False, None, True]
    assert said == [
        "note: 'a' holds 1 '-999', 1 '-999.0', 1 '?': taken as gaps",
        "note: 'b' holds 1 'x': taken as gaps",
        "note: 'c' holds 1 '?': taken as gaps",
    ]
    schema = with_written(find_schema(pl.concat([table] * 2), params), written)
    assert [f.missing_words for f in schema.features] == [["?", "-999"], ["x"], ["?", "-999"]]


def test_words_that_may_stand_for_gaps_are_said_with_their_line(tmp_path: Path) -> None:
    lines = ["a,b,y", *(f"{n},{'NA' if n % 9 == 0 else 'NO'},{'uv'[n % 2]}" for n in range(60))]
    lines += [f"-999,?,{word}" for word in "uv"]
    table = table_of(tmp_path, lines)
    params = prepare_params()
    said = list(find_doubts(table, find_schema(table, params), params.columns))
    assert said == [
        "'a' holds 2 -999, taken as numbers; if that is no value, columns: {a: {missing: [-999]}}",
        "'b' holds 7 'NA', 2 '?', taken as categories; if that is no value, "
        "columns: {b: {missing: ['NA', '?']}}",
    ]


def test_division_by_zero_is_a_gap_among_numbers(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["a,b,y", "1,#DIV/0!,u", "#DIV/0!,x,v", "2,y,u"])
    read, _, said = read_written(table, prepare_params())
    assert read["a"].to_list() == [1, None, 2]
    assert read["b"].to_list() == ["#DIV/0!", "x", "y"]
    assert said == ["note: 'a' holds 1 '#DIV/0!': taken as gaps"]


NEW = [
    ("1.299,99", "Oslo", 1299.99),
    ("12", "?", 12.0),
    ("?", "Bergen", None),
    ("#DIV/0!", "x", None),
    ("-1", "Oslo", None),
]
WAY = "1 299km"
WRONG = ["1.5", "1,299.99", "twelve"]


def prices(folder: Path) -> Path:
    """A table of prices as a shop in Europe writes them, and towns, with '?' and -1 for gaps."""
    path = folder / "prices.csv"
    lines = ["id;price;town;way;y"]
    for n in range(90):
        price = "?" if n % 11 == 5 else f"{n // 9 + 1}.{100 + 7 * n},{n % 90 + 10}"
        town = "?" if n % 13 == 6 else ("Oslo", "Bergen")[n % 2]
        lines.append(f"{n};{price};{town};{n + 1} {100 + n} km;{'ab'[n % 3 == 0]}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_new_rows_of_each_kind_of_file_and_in_json_are_read_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {
        "prepare.source": str(prices(tmp_path)),
        "prepare.missing": ["?", -1],
        "prepare.columns": {"way": {"unit": "km"}},
        "infer.input": None,
        "train.epochs": 1,
    }
    project = small_project(tmp_path / "project", pl.DataFrame({"x": [1]}), changes)
    run_stages(project, "prepare", "build", "tune", "train", "infer")
    shown = capsys.readouterr().out
    assert "note: 'price' holds numbers written as 1.234,5: '1.100,10' (row 0) is 1100.1" in shown
    schema = read_schema(project.path / "data/prepare")
    price, town, way = schema.features
    assert (way.kind, way.decimal, way.thousands, way.unit) == ("numeric", ".", " ", "km")
    assert (price.decimal, price.thousands, price.missing_words) == (",", ".", ["?", "-1"])
    assert town == Feature(
        name="town",
        kind="categorical",
        missing=True,
        categories=["Bergen", "Oslo"],
        missing_words=["?", "-1"],
    )
    records = [{"id": n, "price": p, "town": t, "way": WAY} for n, (p, t, _) in enumerate(NEW)]
    records.append({"id": 50, "price": 1299.99, "town": "Oslo", "way": 1299})
    records.append({"id": 51, "price": -1, "town": "?", "way": "-1"})
    texts = pl.DataFrame([{**each, "price": str(each["price"])} for each in records[:5]])
    files = {
        "t.csv": lambda path: texts.write_csv(path, separator=";"),
        "t.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, records))),
        "t.parquet": texts.write_parquet,
    }
    from pipeline.serve.codec.rows import decode

    bundle = load_bundle(project.path / "data/infer")
    answers = decode(bundle.signature, bundle.run(bundle.encode(records)), records)  # type: ignore[arg-type]
    served = [each["probabilities"]["a"] for each in answers]  # type: ignore[index]
    predictor = load_predictor(project.path / "data")
    for name, write in files.items():
        path = tmp_path / name
        write(path)
        (part,) = read_chunks(path, schema, "infer.input")
        found = predictor.predict(part.table)["probability_a"].to_list()
        np.testing.assert_allclose(found, served[: len(found)], rtol=1e-5)
        assert part.table["town"].to_list()[:5] == ["Oslo", None, "Bergen", "x", "Oslo"]
    # One number, however it is told; and a gap, whichever word says so.
    assert served[0] == served[5]
    assert len({served[2], predictor_of_gap(bundle)}) == 1
    wrong = [*({"price": text} for text in WRONG), *({"way": text} for text in ("5 m", "5", "km"))]
    for values in wrong:
        with pytest.raises(RequestError):
            bundle.encode([{"id": 1, "price": 1, "town": "Oslo", "way": 1, **values}])
    # How it is to be written is told.
    told = "; numbers are written as 1 234.5 km in training"
    with pytest.raises(RequestError, match=f"'5 m' is not a number or null{told}"):
        bundle.encode([{"id": 1, "price": 1, "town": "Oslo", "way": "5 m"}])
    pl.concat([texts, texts.with_columns(way=pl.lit("5 m"))]).write_csv(tmp_path / "t.csv")
    (part,) = read_chunks(tmp_path / "t.csv", schema, "infer.input")
    whole, _ = encode_whole(part, schema, predictor.statistics, "infer.input")
    reasons = {damage.reason for damage in whole.damaged}
    assert reasons == {f"'5 m' is not a number that can be computed with{told}"}


def predictor_of_gap(bundle: object) -> object:
    rows = [{"id": 1, "price": None, "town": "Bergen", "way": WAY}]
    outputs = bundle.run(bundle.encode(rows))  # type: ignore[attr-defined]
    return outputs[1][0][0]


@pytest.mark.parametrize(
    ("header", "rows", "asked"),
    [
        ("x;z", ["1.861;1", "967;1", "16.948;1"], True),
        ("x\tz", ["1.861\t1", "967\t1"], True),
        ("x,z", ['1.861,"1,5"', '-1.200,"2"'], True),
        ("x;z", ["1.861;1", "?;1"], True),
        # Programs write so, or no thousand begins so.
        ("x,z", ["1.861,1", "967,1"], False),
        ("x;z", ["0.861;1", "1.861;1"], False),
        ("x;z", ["1.861;1", "1.5;1"], False),
        ("x;z", ["1.861;1", "1861.125;1"], False),
        ("x;z", ["1.500;1", "1.5;1"], False),
        ("x;z", ["967;1", "1;1"], False),
    ],
)
def test_a_dot_before_three_digits_is_asked_about_where_commas_are_decimal_signs(
    tmp_path: Path, header: str, rows: list[str], *, asked: bool
) -> None:
    path = tmp_path / ("t.tsv" if "\t" in header else "t.csv")
    path.write_text("\n".join([header, *rows * 3]), encoding="utf-8")

    def look(**said: object) -> pl.Series:
        params = prepare_params(missing=["?"], target="", columns={"x": said})
        found = signed_columns(params.columns)
        table = open_table(path, KEY, tmp_path / "parts", as_text=found)
        return apply_writing(table, take_sample(table, []), params)[0].column("x")

    if not asked:
        assert look().dtype.is_numeric()
        return
    with pytest.raises(UserError) as caught:
        look()
    (problem,) = caught.value.problems
    assert "1.861: columns: {x: {kind: numeric, decimal: '.'}}" in problem.message
    assert (
        """1861: columns: {x: {kind: numeric, decimal: ',', thousands: "."}}""" in problem.message
    )
    assert look(decimal=".")[0] == 1.861
    assert look(thousands=".")[0] == 1861


def test_signs_that_are_said_count_in_every_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,z\n1.861,1\n967,2\n", encoding="utf-8")
    params = prepare_params(target="", columns={"x": {"thousands": "."}})
    as_text = signed_columns(params.columns)
    table = open_table(path, KEY, tmp_path / "parts", as_text=as_text)
    read = apply_writing(table, take_sample(table, []), params)[0]
    assert read.column("x").to_list() == [1861, 967]


@pytest.mark.parametrize("said", ["{calendar: true}", "{format: '%y,%m'}", "datetime"])
def test_dates_are_no_numbers(said: str) -> None:
    column = pl.Series("x", ["1,5", "2,11", "13,4"])
    params = prepare_params(columns={"x": YAML(typ="safe").load(said)})
    read, written, _ = read_written(column.to_frame(), params)
    assert read["x"].to_list() == column.to_list()
    assert written["x"].decimal is None
