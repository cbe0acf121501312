"""Numbers as people write them and words for gaps: decided over all rows."""

from pathlib import Path

import polars as pl
import pytest
from ruamel.yaml import YAML

from stages.common.config import validate
from stages.common.errors import UserError
from stages.features.spelling import WRITINGS, as_number, number_pattern, to_plain, with_unit
from stages.features.written import read_numbers
from stages.prepare.columns.doubts import find_doubts
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.columns.written import find_writing, read_written, with_written
from stages.prepare.params import PrepareParams
from tests.support.samples import prepare_params
from tests.support.stages.columns import KEY
from tests.support.tables import read_table


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


@pytest.mark.parametrize("said", ["{calendar: true}", "{format: '%y,%m'}", "datetime"])
def test_dates_are_no_numbers(said: str) -> None:
    column = pl.Series("x", ["1,5", "2,11", "13,4"])
    params = prepare_params(columns={"x": YAML(typ="safe").load(said)})
    read, written, _ = read_written(column.to_frame(), params)
    assert read["x"].to_list() == column.to_list()
    assert written["x"].decimal is None
