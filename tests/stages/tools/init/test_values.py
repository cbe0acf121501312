"""Values as people write them: units, words for gaps, parts of dates."""

import re
import shlex
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from stages.prepare.columns.units import find_unit
from stages.tools.init.options import found_as_options
from tests.support.stages.looks import NUM_ROWS, line, look, ships


def test_what_people_write_is_declared_for_prepare(tmp_path: Path) -> None:
    table = ships(
        fare=[f"1.{n % 900 + 100},5" for n in range(NUM_ROWS)],
        born=[f"{1 + n % 28}/{1 + n % 12}/1890" for n in range(NUM_ROWS)],
        size=[("?" if n % 9 == 4 else str(150 + n % 40)) for n in range(NUM_ROWS)],
        ticket=[f"PC{n}" for n in range(NUM_ROWS)],
        price=[f"{n % 9 + 1},{n % 900 + 100}" for n in range(NUM_ROWS)],
    )
    found = look(tmp_path, table)
    roles = {name: line(found, name)["role"] for name in ("fare", "born", "size")}
    assert roles == {"fare": "numeric", "born": "datetime", "size": "numeric"}
    assert found["values"]["prepare.columns"] == {
        "size": {"missing": ["?"]},
        "ticket": "exclude",
        "price": "exclude",
    }
    # Which of both a comma is, a person has to say: the two lines are shown.
    (warning,) = line(found, "price")["warnings"]
    assert "decimal: ','" in warning
    assert 'thousands: ","' in warning


def test_units_are_proposed_where_all_values_have_one(tmp_path: Path) -> None:
    rows = range(NUM_ROWS)
    table = ships(
        way=[f"{n + 1} {100 + n % 900} km" for n in rows],
        cost=[f"${n},{n % 90 + 100}.50" if n else "$3" for n in rows],
        doubt=[f"{n % 9 + 1},{n % 900 + 100} €" for n in rows],
        mixed=[f"{n} {'kg' if n % 2 else 'g'}" for n in rows],
        some=[f"{n} kg" if n % 9 else "VB" for n in rows],
        name=[f"PC {n}" for n in rows],
    )
    found = look(tmp_path, table)
    assert found["values"]["prepare.columns"] == {
        "way": {"kind": "numeric", "unit": "km", "thousands": " "},
        "cost": {"kind": "numeric", "unit": "$", "thousands": ","},
        **dict.fromkeys(("doubt", "mixed", "some", "name"), "exclude"),
    }
    assert line(found, "way")["why"].endswith("with the unit 'km', thousands ' '")
    assert "unit: '€'" in line(found, "doubt")["warnings"][0]
    assert "look like numbers, as '0 g', '1 kg'" in line(found, "mixed")["why"]
    assert (
        "columns: {some: {kind: numeric, unit: 'kg', missing: ['VB']}}"
        in (line(found, "some")["why"])
    )
    assert "look like numbers" not in line(found, "name")["why"]
    found = look(tmp_path, table, "cost")
    assert found["task"]["name"] == "regression"
    assert "'$'" in line(found, "cost")["why"]


def test_a_unit_on_both_sides_is_written_with_the_place_of_the_number(tmp_path: Path) -> None:
    fees = [f"${n % 90 * 20 + 300:,}.50/mo" for n in range(NUM_ROWS)]
    found = look(tmp_path, ships(fee=fees))
    assert line(found, "fee")["role"] == "numeric"
    said = found["values"]["prepare.columns"]["fee"]
    assert said == {"kind": "numeric", "unit": "$…/mo", "thousands": ","}
    # A rate that is no money stands as it is.
    assert find_unit(pl.Series(["3/4 cup", "1/2 cup"])) is None


def test_words_for_gaps_are_taken_from_numbers_with_a_unit(tmp_path: Path) -> None:
    rows = range(NUM_ROWS)
    table = ships(
        share=["N/A" if n % 9 == 4 else f"{n % 101}%" for n in rows],
        odd=["VB" if n % 9 == 4 else f"{n % 90} km" for n in rows],
        income=[{4: "N/A", 5: "don't know", 6: "won't say"}.get(n % 9, str(n)) for n in rows],
    )
    columns = ("odd={missing: [VB]}", "income={missing: [N/A]}")
    found = look(tmp_path, table, columns=columns)
    said = {
        "share": {"kind": "numeric", "unit": "%", "missing": ["N/A"]},
        "odd": {"kind": "numeric", "unit": "km", "missing": ["VB"]},
        "income": {"missing": ["N/A"]},
    }
    assert found["values"]["prepare.columns"] == said
    assert [line(found, name)["role"] for name in said] == ["numeric", "numeric", "categorical"]
    assert line(found, "share")["why"].endswith("with the unit '%'")
    (warning,) = found_as_options(found)["warnings"]
    (advice,) = re.findall(r"if these stand for no value, (--column .*?), or --column", warning)
    again = look(tmp_path, table, columns=[*columns[:1], *shlex.split(advice)[1:]])
    assert line(again, "income")["role"] == "numeric"
    assert again["warnings"] == []


def test_parts_dates_and_durations_are_said(tmp_path: Path) -> None:
    days = [date(2020, 1, 1) + timedelta(n % 40) for n in range(NUM_ROWS)]
    table = ships(
        part=[("train", "Test", "val")[n % 3] for n in range(NUM_ROWS)],
        stay=[timedelta(hours=n) for n in range(NUM_ROWS)],
        due=days,
    )
    found = look(tmp_path, table, "due")
    (part, target) = found["warnings"]
    assert part.startswith("'part' names the parts of a data set, and is learned from as 3 categ")
    assert "prepare.split: {seed: 0, validation: 0.15, test: 0.2, column: part}, or" in part
    assert target.startswith("the target 'due' is dates, and each of the 40 is a class: to predict")
    assert "holds durations: write a number of seconds in the file" in line(found, "stay")["why"]
    assert look(tmp_path, table, columns=["part=categorical"])["warnings"] == []


def test_words_for_gaps_are_taken_from_dates(tmp_path: Path) -> None:
    days = [f"2021-{1 + n % 12:02d}-{1 + n % 28:02d}" for n in range(NUM_ROWS)]
    table = ships(
        day=["NA" if n == 4 else day for n, day in enumerate(days)],
        seen=["NaT" if n % 3 == 1 else day for n, day in enumerate(days)],
        two=[{4: "NULL"}.get(n, f"{1 + n % 12}/{1 + n % 11}/2021") for n in range(NUM_ROWS)],
    )
    found = look(tmp_path, table)
    said = {"day": {"missing": ["NA"]}, "seen": {"missing": ["NaT"]}, "two": "exclude"}
    assert found["values"]["prepare.columns"] == said
    assert [line(found, name)["role"] for name in said] == ["datetime", "datetime", "left out"]
    assert any("1 'NA'" in note for note in found["notes"])
    (warning,) = line(found, "two")["warnings"]
    assert "{kind: datetime, format: '%m/%d/%Y', missing: ['NULL']}" in warning


def test_words_for_gaps_may_stand_in_most_rows(tmp_path: Path) -> None:
    rows = range(NUM_ROWS)
    table = ships(
        dose=["." if n % 5 else str(n % 25) for n in rows],
        flag=["." if n % 4 else "1" for n in rows],
        level=["none" if n % 4 else str(n % 12) for n in rows],
    )
    found = look(tmp_path, table, "level")
    assert found["values"]["prepare.columns"] == {"dose": {"missing": ["."]}}
    assert [line(found, name)["role"] for name in ("dose", "flag")] == ["numeric", "categorical"]
    assert found["task"]["name"] == "classification"
