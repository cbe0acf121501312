"""A few values that are not like the others: said, or stopped for."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.stages.doubts import NUMBERS, found, stopped, table_of


@pytest.mark.parametrize(
    ("stray", "remedy"),
    [
        *(
            (word, f"columns: {{x: {{missing: ['{word}']}}}}")
            for word in ("n/a", "None", "NuLL", "#N/A", "-", ".")
        ),
        *((text, "1234.5") for text in ("1,5", "$1,234", "(5)", "12%", "€ 3", "-1.299,99")),
        ("007", "without leading zeros"),
        ("twelve", "correct the file"),
        ("2024-01-05", "correct the file"),
    ],
)
def test_one_value_does_not_make_categories_of_numbers(
    tmp_path: Path, stray: str, remedy: str
) -> None:
    numbers = [number + ".5" for number in NUMBERS]
    table = table_of(tmp_path, [*numbers[:17], stray, *numbers[18:]])
    problem = stopped(table)
    assert problem.message.startswith(
        f"the column 'x' holds 299 numbers, and 1 value is none: '{stray}' (row 17)\n"
    )
    assert remedy in problem.message
    assert "columns: {x: categorical}" in problem.message
    assert problem.key == "prepare.columns.x"
    assert problem.allowed == ("categorical", "exclude")
    # What is said on purpose is not asked again, nor talked about.
    schema, said = found(table, columns={"x": "categorical"})
    assert schema.features[0].kind == "categorical"
    assert said == []


def test_a_word_that_stands_for_a_gap_in_many_rows_stops_as_well(tmp_path: Path) -> None:
    problem = stopped(table_of(tmp_path, ["none", *NUMBERS, *["none"] * 99]))
    assert "300 numbers, and 100 values are none: 'none' (row 0)" in problem.message


def test_one_value_does_not_make_categories_of_truths(tmp_path: Path) -> None:
    values = ["true", "False"] * 50
    problem = stopped(table_of(tmp_path, [*values, "perhaps"]))
    assert "100 truths, and 1 value is none: 'perhaps' (row 100)" in problem.message


def test_numbers_without_a_stray_value_are_numbers(tmp_path: Path) -> None:
    for extra in ("", "1e3", "-4.5", "+5", " 6 "):
        schema, said = found(table_of(tmp_path, [*NUMBERS, extra]))
        assert schema.features[0].kind == "numeric"
        assert said == []


WORDS = ["N/A", "don't know", "prefer not to say"]


@pytest.mark.parametrize(
    ("numbers", "unit"),
    [
        ([str(1000 * n) for n in range(10, 90)], ""),
        ([f"{n}%" for n in range(80)], "kind: numeric, unit: '%', "),
        ([f"{n},5" for n in range(80)], ""),
    ],
)
def test_words_among_numbers_are_said_with_the_line_that_makes_numbers_of_the_rest(
    tmp_path: Path, numbers: list[str], unit: str
) -> None:
    table = table_of(tmp_path, [*numbers, *WORDS * 5])
    (line,) = found(table)[1]
    what = "numbers with the unit '%'" if unit else "numbers"
    assert line.startswith(f"'x' holds {what}, taken as 83 categories for the 15 words among them")
    told = """['N/A', "don't know", 'prefer not to say']"""
    advice = f"columns: {{x: {{{unit}missing: {told}}}}}"
    assert advice in line
    schema, said = found(table, **YAML(typ="safe").load(advice))
    assert (schema.features[0].kind, said) == ("numeric", [])
    # The words that are said already stay in the lines that say others.
    (line,) = found(table, columns={"x": {"missing": ["N/A"]}})[1]
    assert "82 categories for the 10 words among them" in line
    assert advice in line
    assert "if that is meant, columns: {x: {kind: categorical, missing: ['N/A']}}" in line


def test_a_column_that_has_words_for_gaps_is_judged_by_its_other_texts(tmp_path: Path) -> None:
    table = table_of(tmp_path, [f"{n}%" if n % 9 else "N/A" for n in range(90)])
    (line,) = found(table, columns={"x": {"missing": ["N/A"]}})[1]
    assert "columns: {x: {kind: numeric, unit: '%', missing: ['N/A']}}, or" in line
    for said in ("categorical", {"kind": "categorical"}, {"unit": "%", "missing": ["N/A"]}):
        assert found(table, columns={"x": said})[1] == []
    problem = stopped(table_of(tmp_path, [*NUMBERS, "N/A", "a few"]), missing=["N/A"])
    assert "say so: columns: {x: {missing: ['N/A', 'a few']}}" in problem.message


@pytest.mark.parametrize("word", ["NA", "NaT", "NULL", ".", "to be said"])
def test_words_among_dates_stop_with_the_line_that_makes_gaps_of_them(
    tmp_path: Path, word: str
) -> None:
    days = [f"2021-{1 + n % 12:02d}-{1 + n % 28:02d}" for n in range(90)]
    table = table_of(tmp_path, [*days, word])
    advice = f"columns: {{x: {{missing: ['{word}']}}}}"
    for said in ({}, {"x": "datetime"}):
        problem = stopped(table, columns=said)
        assert f"holds 90 dates, and 1 value is none: '{word}' (row 90)\n" in problem.message
        assert f"say so: {advice}; or, if each of its" in problem.message
    schema, told = found(table, **YAML(typ="safe").load(advice))
    assert (schema.features[0].kind, told) == ("datetime", [])
    # The format that is said stays in the line.
    form = {"kind": "datetime", "format": "%Y-%m-%d"}
    problem = stopped(table, columns={"x": form})
    (advice,) = re.findall("say so: (.*?); or, if", problem.message)
    assert YAML(typ="safe").load(advice) == {"columns": {"x": {**form, "missing": [word]}}}


def test_words_that_are_gaps_stand_in_the_lines_that_say_what_a_date_is(tmp_path: Path) -> None:
    table = table_of(tmp_path, [*["01/02/2024", "03/04/2024"] * 9, "NA"])
    problem = stopped(table, columns={"x": {"missing": ["NA"]}})
    lines = [line.partition("#")[0] for line in problem.message.splitlines()[1:]]
    assert len(lines) == 2
    for line in lines:
        assert found(table, **YAML(typ="safe").load(line))[1] == []


@pytest.mark.parametrize("word", [".", "None", "unknown", "NA", "-"])
def test_words_for_gaps_in_most_rows_are_said_with_the_line_that_makes_numbers_of_the_rest(
    tmp_path: Path, word: str
) -> None:
    codes = ["1", "2", "3"] * 10
    (line,) = found(table_of(tmp_path, [*codes, *[word] * 90]))[1]
    assert line.startswith("'x' holds numbers, taken as 4 categories for the 90 words among them")
    (advice,) = re.findall("these stand for no value, (.*?), or columns", line)
    schema, told = found(table_of(tmp_path, codes), **YAML(typ="safe").load(advice))
    assert (schema.features[0].kind, told) == ("numeric", [])
    # A word that may be one among others is one.
    assert found(table_of(tmp_path, [*codes, *["often"] * 90]))[1] == []
