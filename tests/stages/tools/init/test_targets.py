"""Targets: classes of texts and of numbers, rare ones, long tails."""

import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError, format_problem
from stages.prepare.columns.target import find_target
from stages.prepare.columns.written import read_written
from stages.prepare.params import PrepareParams
from stages.tools.init.options import name_option
from tests.support.stages.looks import NUM_ROWS, RANDOM, look, ships, told


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
