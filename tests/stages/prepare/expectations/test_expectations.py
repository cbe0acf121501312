"""The raw table against its suite: what stops the stage, and what it says."""

import datetime

import numpy as np
import polars as pl
import pytest

from stages.prepare.expectations.run import FAILED_PAGE, MAX_FAILURES_SHOWN
from tests.stages.prepare.expectations.suites import BETWEEN, OUT, about, check, screen


def test_a_critical_failure_says_what_where_and_how_often() -> None:
    said = screen(about("values_to_not_be_null"), BETWEEN)
    assert "rows.csv does not meet suite.yaml: 1 critical of 2" in said
    assert "'age' is between 0 and 120: fails in 3 of 6 rows (50 %)" in said
    assert "such as -2.0 (row 2); 131.0 (rows 3, 4)" in said
    assert "suite.yaml:3  1.type: expect_column_values_to_be_between" in said
    assert str(FAILED_PAGE) in said
    assert "prepare.source" in said
    assert not list(OUT.iterdir())


def test_a_warning_is_printed_and_does_not_stop(capsys: pytest.CaptureFixture[str]) -> None:
    counts = check(BETWEEN.replace("critical", "warning"), about("values_to_not_be_null"))
    assert counts == {"rows": 6, "columns": 3, "expectations": 2, "passed": 1, "warnings": 1}
    said = capsys.readouterr()
    assert said.out.startswith("warning  'age' is between 0 and 120: fails in 3 of 6 rows (50 %)")
    assert said.err == ""
    assert "1 warning, 1 of 2 expectations met" in (OUT / "expectations.html").read_text()
    assert not FAILED_PAGE.exists()


def test_many_failures_are_one_screen() -> None:
    rules = [about("mean_to_be_between", rest=f", min_value: {1000 + n}") for n in range(20)]
    said = screen(*rules)
    assert said.count("the mean of") == MAX_FAILURES_SHOWN
    assert "and 15 more" in said
    assert FAILED_PAGE.read_text().count("the mean of") == 20


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (about("values_to_be_unique", "id"), "such as 13 (rows 3, 4)"),
        (about("values_to_not_be_null", "id"), "fails in 1 of 6 rows (16.7 %), such as row 5"),
        (about("values_to_be_in_set", "job", ", value_set: [nurse, cook]"), "'cook ' (row 3)"),
        (
            about("values_to_be_in_set", "job", ", value_set: [nurse, cook]"),
            "fails in 2 of 5 rows with a value (40 %)",
        ),
        (
            "type: expect_compound_columns_to_be_unique, column_list: [id, age], "
            "severity: critical",
            "such as id 13, age 131.0 (rows 3, 4)",
        ),
        (
            "type: expect_column_pair_values_a_to_be_greater_than_b, column_A: id, column_B: age, "
            "row_condition: age > 100, severity: critical",
            "fails in 2 of 2 rows (100 %), such as id 13, age 131.0 (rows 3, 4)",
        ),
        (
            about("distinct_values_to_equal_set", "id", ", value_set: [10, 11, 12, 14]"),
            "1 too many (13), 1 missing (14)",
        ),
        (about("mean_to_be_between", rest=", max_value: 40"), "at most 40: found 66.417"),
        (
            "type: expect_table_columns_to_match_set, column_set: [id, name], severity: critical",
            "found unexpected: age, job; missing: name",
        ),
        (
            "type: expect_table_columns_to_match_ordered_list, column_list: [id, job, age], "
            "severity: critical",
            "column 2 is age, not job",
        ),
        (about("to_exist", "name"), "there is a column 'name': not so"),
        (about("mean_to_be_between", "job", ", min_value: 1"), "could not be checked: "),
        (
            about("values_to_be_between", "job", ", min_value: 1"),
            "could not be checked: its bounds are of another type than its values",
        ),
    ],
)
def test_what_was_found_is_said(rule: str, says: str) -> None:
    assert says in screen(rule)


def test_images_are_checked_for_gaps_and_duplicates() -> None:
    images = np.random.default_rng(0).integers(16, size=(40, 8, 8), dtype=np.uint8)
    images[[7, 30]] = images[3]
    images[21] = images[5]
    table = pl.DataFrame({"image": images})
    said = screen(about("values_to_be_unique", "image"), table=table)
    assert "fails in 5 of 40 rows (12.5 %), such as rows 3, 7, 30; rows 5, 21" in said
    with_gap = table.with_columns(image=pl.when(pl.int_range(pl.len()) != 9).then("image"))
    assert "such as row 9" in screen(about("values_to_not_be_null", "image"), table=with_gap)
    assert check(about("unique_value_count_to_be_between", "image", ", min_value: 37"), table=table)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([[1, 2], [3], None]),
        pl.Series([{"a": 1}, {"a": 2}, None]),
        pl.Series([b"a", b"b", None]),
        pl.Series([None, None, None]),
        pl.Series([float("inf"), float("nan"), 1.0]),
        pl.Series(["a", "b", None], dtype=pl.Categorical),
        pl.Series(["1.50", "2.50", None]).cast(pl.Decimal(10, 2)),
        pl.Series([datetime.timedelta(1), None, None]),
        pl.Series(["", " ", None]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_every_type_of_column_has_its_place(column: pl.Series) -> None:
    table = pl.DataFrame({"x": column})
    assert check(about("unique_value_count_to_be_between", "x", ", max_value: 3"), table=table)
    assert "<b>x</b>" in (OUT / "expectations.html").read_text()


@pytest.mark.parametrize("bits", [60, 90])
def test_long_numbers_with_gaps_stay_apart(bits: int) -> None:
    table = pl.DataFrame({"id": [2**bits, 2**bits + 1, None]})
    assert check(about("values_to_be_unique", "id"), table=table)
    twice = table.vstack(table[1:2])
    said = screen(about("values_to_be_unique", "id"), table=twice)
    assert f"such as {2**bits + 1} (rows 1, 3)" in said


@pytest.mark.parametrize("names", ["int64", "Int64", "int, str", "float, Int64"])
def test_whole_numbers_are_of_their_type_with_gaps_and_without(names: str) -> None:
    table = pl.DataFrame({"with": [1, None, 3], "without": [1, 2, 3]})
    for column in table.columns:
        for other in ("uint8", "float64", "bool"):
            said = screen(
                about("values_to_be_in_type_list", column, f", type_list: [{other}]"), table=table
            )
            assert "found int64" in said
        rules = [about("values_to_be_in_type_list", column, f", type_list: [{names}]")]
        if ", " not in names:
            rules.append(about("values_to_be_of_type", column, f", type_: {names}"))
        assert check(*rules, table=table)["passed"] == len(rules)


def test_dates_of_the_suite_compare_with_dates_of_the_table() -> None:
    table = pl.DataFrame({"day": [datetime.date(2020, 1, 1), datetime.date(2024, 5, 17)]})
    assert check(about("values_to_be_between", "day", ", min_value: 2020-01-01"), table=table)
    said = screen(about("values_to_be_between", "day", ", max_value: 2020-12-31"), table=table)
    assert "'day' is at most 2020-12-31" in said
    assert "such as 2024-05-17 (row 1)" in said
