"""Roles that `reprise init` gives to columns, and why."""

import shlex
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.table.table import in_memory
from stages.tools.expect.drift import draft_drift
from stages.tools.init.options import as_options, found_as_options
from stages.tools.init.roles import find_copies, is_key
from tests.support.samples import prepare_params
from tests.support.stages.looks import NUM_ROWS, RANDOM, line, look, ships


def test_every_column_has_a_role_and_a_reason(tmp_path: Path) -> None:
    alive = pl.Series("alive", ["no"] * NUM_ROWS)
    table = ships(ship="Titanic", age_again=0, alive=alive, deck=None)
    table = table.with_columns(age_again="Age", alive="Survived")
    found = look(tmp_path, table)
    roles = {column["name"]: column["role"] for column in found["columns"]}
    assert roles == {
        "PassengerId": "key",
        "Sex": "categorical",
        "Age": "numeric",
        "Survived": "target",
        "ship": "left out",
        "age_again": "left out",
        "alive": "left out",
        "deck": "left out",
    }
    assert line(found, "Age")["missing"] == table["Age"].null_count()
    assert "as 'Age'" in line(found, "age_again")["why"]
    assert "a leak" in line(found, "alive")["why"]
    assert "nothing to learn" in line(found, "ship")["why"]
    values = found["values"]
    assert values["prepare.key"] == "PassengerId"
    excluded = ("ship", "age_again", "alive", "deck")
    assert values["prepare.columns"] == dict.fromkeys(excluded, "exclude")
    assert not values["prepare.drop_missing_target"]


def test_rows_without_a_target_are_left_out_and_ties_are_kept(tmp_path: Path) -> None:
    table = ships(family=RANDOM.integers(0, 80, NUM_ROWS))
    survived = table["Survived"].set(pl.Series(np.arange(NUM_ROWS) < 3), None)
    found = look(tmp_path, table.with_columns(Survived=survived), group="family", key="PassengerId")
    assert found["values"]["prepare.drop_missing_target"]
    assert found["values"]["prepare.structure"] == {"group": "family"}
    assert line(found, "family")["role"] == "group"


def test_an_unknown_column_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--target survived: .* has no such column") as raised:
        look(tmp_path, ships(), target="survived")
    assert raised.value.problems[0].suggestion == "Survived"


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("customer_id", ["a7", "b3", "c9"], True),
        ("sample", ["S1", "S3", "S2"], True),
        ("subject", ["Re: your order", "Invoice", "Offer"], False),
        ("orderId", [7, 3, 9], True),
        ("userid", [7, 3, 9], True),
        ("ID#", [7, 3, 9], True),
        ("customer_number", [7, 3, 9], True),
        ("bid", [7, 3, 9], False),
        ("n", [1, 2, 3], True),
        ("paid", [7, 3, 9], False),
        ("id", [7, 3, 7], False),
        ("id", [7, None, 9], False),
        ("id", [0.5, 1.5, 2.5], False),
    ],
)
def test_a_key_names_each_row(name: str, values: list[object], expected: bool) -> None:  # noqa: FBT001
    assert is_key(pl.Series(name, values), np.arange(len(values))) == expected


def test_copies_are_the_same_in_each_row() -> None:
    table = pl.DataFrame({"a": [1, 2, None], "b": [2, 1, None], "c": [1, 2, None]})
    assert list(find_copies(table)) == [("c", "a")]


def test_the_command_line_says_what_a_column_is(tmp_path: Path) -> None:
    prices = [f"{n % 9 + 1},{n % 900 + 100}" for n in range(NUM_ROWS)]
    table = ships(price=prices, ship="Titanic", **{"a=b": ["x", "y"] * (NUM_ROWS // 2)})
    said = ('price={kind: numeric, thousands: ","}', "ship=exclude", "a=b=exclude")
    found = look(tmp_path, table, columns=said)
    assert found["values"]["prepare.columns"] == {
        "price": {"kind": "numeric", "thousands": ","},
        "ship": "exclude",
        "a=b": "exclude",
    }
    assert line(found, "price")["role"] == "numeric"
    assert line(found, "price")["values"].startswith("1100 to ")
    found = look(tmp_path, table, "price", columns=said)
    assert line(found, "price")["setting"] == {"kind": "numeric", "thousands": ","}
    assert found["task"]["name"] == "regression"
    for wrong, message in (
        ("prise=numeric", "has no such column"),
        ("price=number", r"'number' is not allowed here"),
        ("price", "must be a name and a setting"),
        ("Survived=exclude", "can't be left out"),
        ("Sex={kind: numeric}", "values that are not a number"),
    ):
        with pytest.raises(UserError, match=message):
            look(tmp_path, table, columns=(wrong,))


def test_what_is_left_out_is_counted_as_it_is(tmp_path: Path) -> None:
    cabin = [f"C{n}" if n % 9 == 4 else None for n in range(NUM_ROWS)]
    survived = ["yes", "no"] * 190 + [None] * 20
    found = look(tmp_path, ships(cabin=cabin).with_columns(Survived=pl.Series(survived)))
    assert line(found, "cabin")["distinct"] == 44
    assert line(found, "cabin")["why"].startswith("44 different texts in 44 rows")
    (note,) = found["notes"]
    assert note.startswith("note: 20 of 400 rows have no 'Survived': left out, by drop_missing")


def test_a_column_without_a_name_is_learned_from_and_has_no_rule(tmp_path: Path) -> None:
    table = ships(**{"": RANDOM.normal(0, 1, NUM_ROWS)})
    found = look(tmp_path, table)
    assert line(found, "")["role"] == "numeric"
    assert all(rule.get("column", "y") for rule in found["expectations"])
    schema = find_schema(table, prepare_params(target="Survived"))
    assert all(rule["column"] for rule in draft_drift(in_memory(table), schema))


def test_a_column_without_a_name_is_left_out_by_the_option_that_is_shown(tmp_path: Path) -> None:
    table = ships().rename({"Age": ""})
    (warning,) = look(tmp_path, table)["warnings"]
    assert warning.endswith('if it is none of yours, columns: {"": exclude}')
    shown = as_options(warning).partition(", ")[2]
    assert shown == "--column '=exclude'"
    found = look(tmp_path, table, columns=[shlex.split(shown)[1]])
    assert found["values"]["prepare.columns"] == {"": "exclude"}
    assert found["warnings"] == []


def test_names_of_several_words_are_left_out_with_the_option_to_read_them(tmp_path: Path) -> None:
    brands = ["Sony Pro", "Canon One"]
    names = [f"{brands[row % 2]} {row}" for row in range(NUM_ROWS)]
    codes = [f"x{row}" for row in range(NUM_ROWS)]
    dishes = [f"ข้าวผัด{row}" for row in range(NUM_ROWS)]
    table = ships(product=names, code=codes, dish=dishes).with_columns(
        pl.col("code").shuffle(seed=0)
    )
    found = found_as_options(look(tmp_path, table))
    assert line(found, "product")["role"] == "left out"
    assert line(found, "product")["why"].endswith(
        "say nothing of new rows; their words may: --column product=text"
    )
    assert line(found, "dish")["why"].endswith("their words may: --column dish=text")
    assert line(found, "code")["why"].endswith("say nothing of new rows")
    found = look(tmp_path, table, columns=["product=text"])
    assert line(found, "product")["role"] == "text"


def test_records_and_lists_have_a_way_on_and_dates_are_called_so(tmp_path: Path) -> None:
    days = [date(1912, 4, 1) + timedelta(days=n % 30) for n in range(NUM_ROWS)]
    table = ships(
        user=[{"age": n % 50, "geo": {"country": "no"}} for n in range(NUM_ROWS)],
        photo=[{"bytes": b"\x89PNG%d" % n, "path": "a.png"} for n in range(NUM_ROWS)],
        scan=[b"\x89PNG%d" % n for n in range(NUM_ROWS)],
        vector=pl.Series([[n, 1.0, 2.0, 0.5] for n in range(NUM_ROWS)], dtype=pl.List(pl.Float64)),
        day=days,
    )
    found = look(tmp_path, table)
    user = line(found, "user")
    assert user["values"] == "records"
    assert "flatten it before, in Polars: table.unnest('user')" in user["why"]
    of_record = "pl.col('photo').struct.field('bytes').alias('photo')"
    assert of_record in line(found, "photo")["why"]
    for name in ("photo", "scan"):
        assert line(found_as_options(found), name)["why"].endswith(f", --column {name}=image")
    assert "each number wants a column (docs/files.md)" in line(found, "vector")["why"]
    assert line(found, "day")["why"] == "dates, read as datetime"


def test_what_has_several_rows_each_is_asked_about(tmp_path: Path) -> None:
    patients = [1000 + number // 4 for number in range(NUM_ROWS)]
    found = look(tmp_path, ships(patid=patients))
    assert line(found, "patid")["role"] == "numeric"
    (said,) = [text for text in found["warnings"] if "'patid'" in text]
    assert f"names {NUM_ROWS // 4:,} different things in {NUM_ROWS:,} rows" in said
    assert "--group patid" in said
    assert not any(
        "patid" in text for text in look(tmp_path, ships(patid=patients), group="patid")["warnings"]
    )
    # Of few different ones nobody divides by them, and numbers that hardly repeat are no amounts.
    few = [number % 5 for number in range(NUM_ROWS)]
    assert not any("patid" in text for text in look(tmp_path, ships(patid=few))["warnings"])
    hardly = [1000 + 7 * max(number, 9) for number in range(NUM_ROWS)]
    assert line(look(tmp_path, ships(patid=hardly)), "patid")["setting"] == "exclude"
    # A price index is an amount, whatever repeats in it.
    found = look(tmp_path, ships(price_index=hardly, line_no=patients))
    assert {line(found, name)["role"] for name in ("price_index", "line_no")} == {"numeric"}
    assert not any("different things" in text for text in found["warnings"])


def test_what_is_one_value_where_there_is_a_target_is_left_out(tmp_path: Path) -> None:
    fares = [float(n) + 0.5 if n % 2 else None for n in range(NUM_ROWS)]
    doses = [None if n % 2 else n for n in range(NUM_ROWS)]
    found = look(tmp_path, ships(Fare=fares, dose=doses), target="Fare")
    assert line(found, "dose")["why"] == "one value in every row that has a target"


@pytest.mark.parametrize("gap", [float("nan"), float("inf")])
def test_a_target_that_is_no_number_is_a_gap(gap: float, tmp_path: Path) -> None:
    fares = [gap if n % 9 == 0 else float(n) + 0.5 for n in range(NUM_ROWS)]
    found = look(tmp_path, ships(Fare=fares), target="Fare")
    assert found["task"]["name"] == "regression"
    assert found["values"]["prepare.drop_missing_target"] is True


def test_two_whole_numbers_are_classes_in_a_short_table(tmp_path: Path) -> None:
    short = ships(ok=[n % 2 for n in range(NUM_ROWS)]).head(30)
    assert look(tmp_path, short, target="ok")["task"]["name"] == "classification"


def test_where_nothing_is_left_each_column_has_its_reason(tmp_path: Path) -> None:
    codes = [f"c{n}" for n in range(NUM_ROWS)]
    table = ships(code=codes, one=["a"] * NUM_ROWS).select("code", "one", "Survived")
    with pytest.raises(UserError, match="no column is left to learn from") as raised:
        look(tmp_path, table)
    said = str(raised.value)
    assert "code: " in said
    assert "one: one value in every row" in said
    assert "--column 'code=…'" in said
