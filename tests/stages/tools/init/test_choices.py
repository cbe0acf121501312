"""Choices of `reprise init`: model, metric, weights, folds, splits, times, groups."""

import shlex
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError, format_problem
from stages.features.schema import Feature, Schema, Target
from stages.tools.init.choose import Facts, choose
from stages.tools.init.options import Options, name_option
from stages.tools.init.survey import survey
from stages.tools.init.times import WHY
from tests.support.stages.looks import NUM_ROWS, RANDOM, line, look, ships, told


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


@pytest.mark.parametrize(
    ("num_columns", "model"),
    [
        (256, {"name": "tabm", "line": True}),
        (1000, {"name": "tabm", "bins": 12, "embedding": 4, "line": True}),
        (9000, {"name": "tabm", "bins": 6, "embedding": 2, "line": True}),
    ],
)
def test_of_very_many_numbers_each_becomes_fewer(num_columns: int, model: dict[str, Any]) -> None:
    features = [Feature(name=f"x{n}", kind="numeric") for n in range(num_columns)]
    schema = Schema(key=None, features=features, target=Target(name="y", task="regression"))
    assert next(choose(Facts(schema, 200))).value == model
    # Enough rows show what is not straight.
    more = {key: value for key, value in model.items() if key != "line"}
    assert next(choose(Facts(schema, 20_000))).value == more


def test_rows_that_hang_together_begin_with_no_line(tmp_path: Path) -> None:
    def model(**arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = look(tmp_path, ships(**columns), **arguments)["values"]
        return dict(found["build.model"])

    columns = {
        "family": np.arange(NUM_ROWS) // 4,
        "people": np.arange(NUM_ROWS) % 5 + 1,
        "when": [date(2020, 1, 1) + timedelta(n) for n in range(NUM_ROWS)],
    }
    assert model()["line"] is True
    for option in ({"group": "family"}, {"weight": "people"}, {"time": "when"}):
        assert "line" not in model(**option), option


def test_a_rare_class_moves_the_first_metric() -> None:
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


def test_files_that_are_called_after_parts_are_said(tmp_path: Path) -> None:
    ships().write_csv(tmp_path / "train.csv")
    ships().with_columns(pl.col("PassengerId") + NUM_ROWS).write_csv(tmp_path / "test.csv")
    (said,) = survey(Options(str(tmp_path), "Survived"))["warnings"]
    assert "holds test.csv, train.csv, whose rows are mixed and divided anew; to keep" in said
    (tmp_path / "test.csv").rename(tmp_path / "more.csv")
    assert survey(Options(str(tmp_path), "Survived"))["warnings"] == []
