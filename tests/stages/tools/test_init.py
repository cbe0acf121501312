"""What `reprise init` makes of columns, and what it chooses."""

import re
import shlex
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.common.errors import Problem, UserError, format_problem
from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.columns.target import find_target
from stages.prepare.columns.units import find_unit
from stages.prepare.columns.written import read_written
from stages.prepare.params import PrepareParams
from stages.prepare.table.table import in_memory
from stages.tools.expect.drift import draft_drift
from stages.tools.init.choose import Facts, choose
from stages.tools.init.options import Options, as_options, found_as_options, name_option
from stages.tools.init.roles import find_copies, is_key
from stages.tools.init.survey import survey
from stages.tools.init.times import WHY
from tests.support.samples import prepare_params

RANDOM = np.random.default_rng(0)
NUM_ROWS = 400


def ships(**more: object) -> pl.DataFrame:
    """Passengers of a ship, of whom some survive: by sex, age and class."""
    sex = RANDOM.choice(["female", "male"], NUM_ROWS)
    age = RANDOM.normal(35, 12, NUM_ROWS).round(1)
    chance = 0.2 + 0.5 * (sex == "female") + 0.2 * (age < 20)
    return pl.DataFrame(
        {
            "PassengerId": np.arange(1, NUM_ROWS + 1),
            "Sex": sex,
            "Age": pl.Series(age).set(pl.Series(np.arange(NUM_ROWS) % 9 == 4), None),
            "Survived": np.where(RANDOM.random(NUM_ROWS) < chance, "yes", "no"),
            **more,
        }
    )


def look(folder: Path, table: pl.DataFrame, target: str = "Survived", **options: Any) -> Any:
    path = folder / "ships.parquet"
    table.write_parquet(path)
    return survey(Options(str(path), target, **options))


def line(found: Any, name: str) -> Any:
    return next(column for column in found["columns"] if column["name"] == name)


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


def test_a_column_that_nearly_tells_the_target_is_kept_and_warned_of(tmp_path: Path) -> None:
    table = ships()
    wrong = pl.Series(np.arange(NUM_ROWS) == 7)
    boat = table["Survived"].replace({"yes": "7", "no": "none"}).set(wrong, "none")
    found = look(tmp_path, table.with_columns(boat=boat))
    assert line(found, "boat")["role"] == "categorical"
    (warning,) = line(found, "boat")["warnings"]
    assert warning.startswith("'boat' alone tells 9")
    assert "boat" not in found["values"]["prepare.columns"]


@pytest.mark.parametrize("kind", ["numbers", "dates", "texts", "few"])
def test_a_column_that_only_one_class_fills_is_a_leak(tmp_path: Path, kind: str) -> None:
    table = ships()
    days = pl.Series([date(1912, 1, 1) + timedelta(days=day) for day in range(NUM_ROWS)])
    values = {
        "numbers": pl.Series(RANDOM.normal(0, 1, NUM_ROWS)),
        "dates": days.cast(pl.String),
        "texts": pl.Series([f"was seen {row} times by {row * 7} men" for row in range(NUM_ROWS)]),
        "few": days,
    }[kind]
    fills = table["Survived"] == "yes"
    if kind == "few":
        # As a fraud that hardly ever happens.
        fills = pl.Series(np.arange(NUM_ROWS) % 45 < 2)
        table = table.with_columns(Survived=fills.replace_strict({True: "yes", False: "no"}))
    found = look(tmp_path, table.with_columns(paid=values.zip_with(fills, pl.Series([None]))))
    assert line(found, "paid")["why"].startswith(
        "a value or a gap in it tells the target all alone"
    )
    assert found["values"]["prepare.columns"]["paid"] == "exclude"


@pytest.mark.parametrize("gap", [None, np.nan])
def test_gaps_that_nearly_tell_the_target_are_warned_of(tmp_path: Path, gap: float | None) -> None:
    table = ships()
    fills = table["Survived"] == "yes"
    odd = next(row for row in range(1, NUM_ROWS, 2) if not fills[row])
    fills = fills.set(pl.Series(np.arange(NUM_ROWS) == odd), value=True)
    numbers = pl.Series(RANDOM.normal(0, 1, NUM_ROWS))
    paid = numbers.zip_with(fills, pl.Series([gap], dtype=pl.Float64))
    found = look(tmp_path, table.with_columns(paid=paid))
    (warning,) = line(found, "paid")["warnings"]
    assert warning.startswith("a value or a gap in 'paid' alone tells 9")


def test_gaps_by_chance_are_no_leak(tmp_path: Path) -> None:
    found = look(tmp_path, ships())
    assert line(found, "Age")["role"] == "numeric"
    assert not line(found, "Age")["warnings"]


def test_an_unknown_column_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--target survived: .* has no such column") as raised:
        look(tmp_path, ships(), target="survived")
    assert raised.value.problems[0].suggestion == "Survived"


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("customer_id", ["a7", "b3", "c9"], True),
        ("orderId", [7, 3, 9], True),
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


def test_choices_follow_from_task_and_rows(tmp_path: Path) -> None:
    few = look(tmp_path, ships())["values"]
    assert few["train.loss"] == {"name": "CrossEntropyLoss"}
    assert few["evaluate.metrics"][0] == "accuracy"
    many = look(tmp_path, pl.concat([ships()] * 60).drop("PassengerId"))["values"]
    assert many["train.batch_size"] > few["train.batch_size"]
    # The fewer rows, the more trainings on other rows; of rows in the order of time there are none.
    assert (few["train.folds"], many["train.folds"]) == (8, 6)
    when = [date(2020, 1, 1) + timedelta(days=n) for n in range(NUM_ROWS)]
    assert "train.folds" not in look(tmp_path, ships(when=when), time="when")["values"]
    amount = look(tmp_path, ships(fare=RANDOM.normal(30, 9, NUM_ROWS)), target="fare")["values"]
    assert amount["train.loss"] == {"name": "MSELoss"}
    assert amount["evaluate.metrics"][0] == "rmse"


def test_texts_alone_are_weighed_word_by_word(tmp_path: Path) -> None:
    words = [f"word {n % 7} of {n} in all" for n in range(NUM_ROWS)]
    found = look(tmp_path, ships(words=words).select("words", "Survived"))
    assert line(found, "words")["role"] == "text"
    assert found["values"]["build.model"] == {"name": "ngrams"}
    assert found["values"]["prepare.split"]["validation"] == 0.05
    found = look(tmp_path, ships(words=words))
    assert found["values"]["prepare.split"]["validation"] == 0.15
    assert found["values"]["build.model"]["name"] == "tabm"


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


def test_a_rare_class_moves_the_first_metric() -> None:
    from stages.features.schema import Feature, Schema, Target

    target = Target(name="y", task="classification", classes=["ill", "well"])
    schema = Schema(key=None, features=[Feature(name="x", kind="numeric")], target=target)
    first = {
        share: next(c.value for c in choose(Facts(schema, 1000, share)) if "metrics" in c.key)[0]
        for share in (0.02, 0.4)
    }
    assert first == {0.02: "f1_macro", 0.4: "accuracy"}


def test_a_weight_is_written_and_is_no_feature(tmp_path: Path) -> None:
    people = RANDOM.integers(1, 9, NUM_ROWS)
    # A copy of the weight may be learned from.
    found = look(tmp_path, ships(people=people, again=people), weight="people")
    values = found["values"]
    assert values["prepare.weight"] == "people"
    assert line(found, "people")["role"] == "weight"
    assert line(found, "again")["role"] == "numeric"
    assert "people" not in values["prepare.columns"]
    assert any(
        note.startswith("weights in 'people': 1 to 8; the 400 rows") for note in found["notes"]
    )
    assert "people" not in {rule.get("column") for rule in found["expectations"]}
    with pytest.raises(UserError, match="1 of 400 rows has a negative weight"):
        look(
            tmp_path,
            ships(people=np.where(people * 0 + np.arange(NUM_ROWS) == 7, -1, people)),
            weight="people",
        )
    with pytest.raises(UserError, match="has no such column"):
        look(tmp_path, ships(), weight="people")


def test_classes_that_are_texts_of_numbers_are_for_prepare_what_they_are_here(
    tmp_path: Path,
) -> None:
    code = pl.Series("code", np.where(RANDOM.random(NUM_ROWS) < 0.5, "1", "2"))
    found = look(tmp_path, ships().with_columns(code), "code")
    (rule,) = (
        rule
        for rule in found["expectations"]
        if rule.get("column") == "code" and "value_set" in rule
    )
    values = {key.removeprefix("prepare."): value for key, value in found["values"].items()}
    params = PrepareParams.model_validate(
        {k: v for k, v in values.items() if k in PrepareParams.model_fields}
    )
    table = pl.read_parquet(tmp_path / "ships.parquet")
    read, _, _ = read_written(table, params)
    assert find_target([read["code"]], params.task).classes == rule["value_set"] == [1, 2]


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


def test_advice_names_the_option_that_follows_it(tmp_path: Path) -> None:
    prices = [f"{n % 9 + 1},{n % 900 + 100}" for n in range(NUM_ROWS)]
    with pytest.raises(UserError) as caught:
        look(tmp_path, ships(price=prices), "price")
    text = format_problem(name_option(caught.value.problems[0]))
    assert "params.yaml" not in text
    advice = [part.split(": ", 1)[1] for part in text.splitlines() if "--column" in part]
    assert advice[1] == """--column 'price={kind: numeric, thousands: ","}'"""
    for words in map(shlex.split, advice):
        found = look(tmp_path, ships(price=prices), "price", columns=words[1:])
        assert found["task"]["name"] == "regression"


def test_what_is_left_out_is_counted_as_it_is(tmp_path: Path) -> None:
    cabin = [f"C{n}" if n % 9 == 4 else None for n in range(NUM_ROWS)]
    survived = ["yes", "no"] * 190 + [None] * 20
    found = look(tmp_path, ships(cabin=cabin).with_columns(Survived=pl.Series(survived)))
    assert line(found, "cabin")["distinct"] == 44
    assert line(found, "cabin")["why"].startswith("44 different texts in 44 rows")
    (note,) = found["notes"]
    assert note.startswith("note: 20 of 400 rows have no 'Survived' and are left out")


def test_folds_are_no_more_than_rows_or_groups_give(tmp_path: Path) -> None:
    few = pl.DataFrame({"a": [1.5, 2.5, 0.5], "y": [2.5, 1.5, 3.5]})
    assert "train.folds" not in look(tmp_path, few, "y")["values"]
    for number, count in ((3, None), (7, 3), (60, 8)):
        found = look(tmp_path, ships(town=np.arange(NUM_ROWS) % number), group="town")
        assert found["values"].get("train.folds") == count


@pytest.mark.parametrize("time", [None, "when"])
def test_two_groups_make_no_three_splits(tmp_path: Path, time: str | None) -> None:
    when = [date(2020, 1, 1) + timedelta(days=n) for n in range(NUM_ROWS)]
    table = ships(town=np.arange(NUM_ROWS) % 2, when=when)
    with pytest.raises(UserError, match=r"'town' has 2 groups, .* or leave --group out"):
        look(tmp_path, table, group="town", time=time)


def test_a_column_without_a_name_is_learned_from_and_has_no_rule(tmp_path: Path) -> None:
    table = ships(**{"": RANDOM.normal(0, 1, NUM_ROWS)})
    found = look(tmp_path, table)
    assert line(found, "")["role"] == "numeric"
    assert all(rule.get("column", "y") for rule in found["expectations"])
    schema = find_schema(table, prepare_params(target="Survived"))
    assert all(rule["column"] for rule in draft_drift(in_memory(table), schema))


@pytest.mark.parametrize(
    ("days", "said", "setting", "why"),
    [
        (1, [], {"kind": "datetime", "calendar": True}, "places in the week, not how late it is"),
        (0, [], None, "the earlier ones span no whole year, week or day"),
        (1, ["when=exclude"], "exclude", "later rows test earlier ones"),
        (1, ["when=datetime"], "datetime", "; learned from is how late it is, too, and later rows"),
        (1, ["when={kind: datetime, calendar: true}"], {"kind": "datetime", "calendar": True}, WHY),
    ],
)
def test_of_the_time_the_calendar_is_learned_from(
    tmp_path: Path, days: int, said: list[str], setting: object, why: str
) -> None:
    when = [date(2020, 1, 1) + timedelta(days=days * n + n // 390) for n in range(NUM_ROWS)]
    found = look(tmp_path, ships(when=when), time="when", columns=said)
    told = line(found, "when")
    assert (told["role"], told["setting"]) == ("time", setting)
    assert why in told["why"]
    assert ("how late it is, too" in told["why"]) == (setting == "datetime")
    assert found["values"]["prepare.columns"].get("when") == setting


def test_a_time_in_a_format_that_is_said_keeps_it_beside_the_calendar(tmp_path: Path) -> None:
    when = [f"{1 + n % 12}/{1 + n // 12 % 12}/{2010 + n // 144}" for n in range(NUM_ROWS)]
    table = ships(when=when)
    said = look(tmp_path, table, time="when", columns=["when={format: '%d/%m/%Y'}"])
    setting = {"kind": "datetime", "format": "%d/%m/%Y", "calendar": True}
    assert said["values"]["prepare.columns"]["when"] == setting


def test_a_column_without_a_name_is_left_out_by_the_option_that_is_shown(tmp_path: Path) -> None:
    table = ships().rename({"Age": ""})
    (warning,) = look(tmp_path, table)["warnings"]
    assert warning.endswith('if it is none of yours, columns: {"": exclude}')
    shown = as_options(warning).partition(", ")[2]
    assert shown == "--column '=exclude'"
    found = look(tmp_path, table, columns=[shlex.split(shown)[1]])
    assert found["values"]["prepare.columns"] == {"": "exclude"}
    assert found["warnings"] == []


@pytest.mark.parametrize(
    ("values", "said", "never"),
    [
        ([f"House {n}" for n in range(NUM_ROWS)], "say      --target …", "regression"),
        (
            [f"{n}.5 " for n in range(NUM_ROWS - 1)] + ["x"],
            "say      --task regression",
            "target …",
        ),
    ],
)
def test_too_many_classes_name_the_option(
    tmp_path: Path, values: list[str], said: str, never: str
) -> None:
    with pytest.raises(UserError, match="fewer than 3 rows") as caught:
        look(tmp_path, ships(it=values), "it", key="PassengerId")
    text = format_problem(name_option(caught.value.problems[0]))
    assert said in text
    assert never not in text
    assert "params.yaml" not in text
    assert "auto" not in text


def test_a_few_rare_classes_are_left_out_by_an_option(tmp_path: Path) -> None:
    values = ["yes", "no"] * (NUM_ROWS // 2 - 1) + ["perhaps", "never"]
    with pytest.raises(UserError) as caught:
        look(tmp_path, ships(it=values), "it")
    text = format_problem(name_option(caught.value.problems[0]))
    assert "drop_missing_target" not in text
    (words,) = [part.split(": ", 1)[1] for part in text.split("; ") if "--column" in part]
    found = look(tmp_path, ships(it=values), "it", columns=shlex.split(words.split("\n")[0])[1:])
    assert found["values"]["prepare.drop_missing_target"]


def test_a_unit_on_both_sides_is_written_with_the_place_of_the_number(tmp_path: Path) -> None:
    fees = [f"${n % 90 * 20 + 300:,}.50/mo" for n in range(NUM_ROWS)]
    found = look(tmp_path, ships(fee=fees))
    assert line(found, "fee")["role"] == "numeric"
    said = found["values"]["prepare.columns"]["fee"]
    assert said == {"kind": "numeric", "unit": "$…/mo", "thousands": ","}
    # A rate that is no money stands as it is.
    assert find_unit(pl.Series(["3/4 cup", "1/2 cup"])) is None


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
        vector=pl.Series([[n, 1.0, 2.0, 0.5] for n in range(NUM_ROWS)], dtype=pl.List(pl.Float64)),
        day=days,
    )
    found = look(tmp_path, table)
    user = line(found, "user")
    assert user["values"] == "records"
    assert "flatten it before, in Polars: table.unnest('user')" in user["why"]
    assert "each number wants a column (docs/files.md)" in line(found, "vector")["why"]
    assert line(found, "day")["why"] == "dates, read as datetime"


@pytest.mark.parametrize(("power", "num_notes"), [(3, 1), (1, 0)])
def test_a_long_tail_of_the_target_is_told_with_its_key(
    tmp_path: Path, power: int, num_notes: int
) -> None:
    incomes = [float(n % 97 + 0.5) ** power for n in range(NUM_ROWS)]
    found = look(tmp_path, ships(income=incomes), "income")
    told = [note for note in found["notes"] if "set prepare.target_transform: log1p" in note]
    assert len(told) == num_notes
    assert found["values"]["prepare.target_transform"] is None


@pytest.mark.parametrize("task", [None, "classification"])
def test_classes_that_pandas_made_floats_are_whole_numbers(
    tmp_path: Path, task: str | None
) -> None:
    survived = pl.Series(np.where(ships()["Survived"] == "yes", 1.0, 0.0))
    survived = survived.set(pl.Series(np.arange(NUM_ROWS) < 3), None)
    found = look(tmp_path, ships().with_columns(Survived=survived), task=task)
    assert found["task"]["name"] == "classification"
    kind = "expect_column_values_to_be_in_set"
    about = [each for each in found["expectations"] if each.get("column") == "Survived"]
    (rule,) = (each for each in about if each["type"] == kind)
    assert rule["value_set"] == [0, 1]
    amounts = survived.set(pl.Series(np.arange(NUM_ROWS) == 9), 0.5)
    found = look(tmp_path, ships().with_columns(Survived=amounts))
    assert found["task"]["name"] == "regression"


@pytest.mark.parametrize("spread", [0, 5])
def test_groups_that_overlap_in_time_are_asked_about(tmp_path: Path, spread: int) -> None:
    days = [date(2023, 1, 1) + timedelta(n // 5 + spread * (n % 5)) for n in range(NUM_ROWS)]
    table = ships(day=days, store=[f"store {n % 5}" for n in range(NUM_ROWS)])
    ways = (
        "  later rows test earlier ones  --time day, without --group\n"
        "  some groups test others       --group store, without --time"
    )
    if spread:
        found = look(tmp_path, table, time="day", group="store")
        (told,) = [line for line in found["warnings"] if line.endswith(ways)]
        assert "70 of 80 test rows are no later than the latest train row" in told
        return
    with pytest.raises(UserError, match="5 groups end together, at 2023-03-21") as caught:
        look(tmp_path, table, time="day", group="store")
    shown = format_problem(name_option(caught.value.problems[0]))
    assert shown.endswith(ways)
    assert "params.yaml" not in shown


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


def told(problems: list[Problem]) -> str:
    return "\n".join(format_problem(name_option(problem)) for problem in problems)


def test_texts_in_a_target_of_numbers_are_named_with_their_rows_and_a_way_on(
    tmp_path: Path,
) -> None:
    price: list[str | None] = [f"{n}.5" for n in range(NUM_ROWS)]
    price[2], price[7], price[9] = None, "0p4", "n/a"
    with pytest.raises(UserError) as caught:
        look(tmp_path, ships(price=price), "price", task="regression")
    said = told(caught.value.problems)
    assert "holds 2 values that are not numbers: '0p4' (row 7), 'n/a' (row 9)" in said
    (line,) = [line for line in said.splitlines() if "--column" in line]
    (word,) = shlex.split(line[line.index("--column") :])[1:]
    # The words that are said already stay in the line.
    one = ["price={missing: ['n/a']}"]
    with pytest.raises(UserError) as caught:
        look(tmp_path, ships(price=price), "price", task="regression", columns=one)
    assert '{missing: ["n/a", "0p4"]}' in told(caught.value.problems)
    found = look(tmp_path, ships(price=price), "price", task="regression", columns=[word])
    assert found["values"]["prepare.drop_missing_target"]
    assert found["task"]["name"] == "regression"


def test_a_key_that_repeats_and_a_weight_below_zero_name_their_options(tmp_path: Path) -> None:
    table = ships(code=[f"c{n % 390}" for n in range(NUM_ROWS)], w=[-1.0] + [1.0] * (NUM_ROWS - 1))
    with pytest.raises(UserError) as caught:
        look(tmp_path, table, key="code")
    said = told(caught.value.problems)
    assert "c0, c1, c2" in said
    assert "20 of 400 rows share theirs with another\n  say      --key …, another column" in said
    with pytest.raises(UserError) as caught:
        look(tmp_path, table, weight="w")
    said = told(caught.value.problems)
    assert "the row 0\n  say      --weight …" in said
    assert "params.yaml" not in said


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


def test_files_that_are_called_after_parts_are_said(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        ships().write_csv(tmp_path / name)
    (said,) = survey(Options(str(tmp_path), "Survived"))["warnings"]
    assert "holds test.csv, train.csv, whose rows are mixed and divided anew; to keep" in said
    (tmp_path / "test.csv").rename(tmp_path / "more.csv")
    assert survey(Options(str(tmp_path), "Survived"))["warnings"] == []
