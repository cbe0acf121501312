"""Mistakes in a suite, all at once, each with what to edit."""

import numpy as np
import polars as pl
import pytest

from stages.common.errors import Problem, UserError, format_problem
from stages.common.yamlfile import with_location
from stages.prepare.expectations.run import _of_other_table, check_expectations
from stages.prepare.expectations.suite import Rule
from stages.prepare.table.table import in_memory
from tests.stages.prepare.expectations.suites import BETWEEN, OUT, SUITE, TABLE, about, screen


@pytest.mark.parametrize(
    ("suite", "says"),
    [
        ("age: 0", ["suite.yaml:1", "list of expectations"]),
        ("- age", ["suite.yaml:1  0: age"]),
        ("- {type: x", ["suite.yaml:2", "not valid YAML"]),
        (f"- {{{BETWEEN}}}\n- {{column: age}}", ["suite.yaml:2", "'1.type'", "'1.severity'"]),
        (
            f"- {{{BETWEEN.replace('critical', 'critcal')}}}",
            ["suite.yaml:1  0.severity: critcal", "allowed  critical, warning", "'critical'?"],
        ),
        (
            f"- {{{BETWEEN.replace('to_be_between', 'to_be_betwen')}}}",
            ["no expectation", "suite.yaml:1  0.type", "'expect_column_values_to_be_between'?"],
        ),
        (
            f"- {{{BETWEEN.replace('min_value', 'minimum')}}}",
            ["no argument 'minimum'", "suite.yaml:1  0.minimum: 0", "min_value"],
        ),
        (
            f"- {{{BETWEEN.replace(': age', ': agee')}}}",
            ["no column 'agee'", "suite.yaml:1  0.column: agee", "id, age, job", "'age'?"],
        ),
        (
            "- {type: expect_compound_columns_to_be_unique, column_list: [id, jab], "
            "severity: critical}",
            ["no column 'jab'", "0.column_list.1: jab", "'job'?"],
        ),
        (
            f"- {{{BETWEEN.replace('0', 'none')}}}",
            ["'min_value'", "not a valid float", "0.min_value: none"],
        ),
        (f"- {{{about('values_to_be_in_set')}}}", ["'value_set': field required"]),
        (f"- {{{BETWEEN}, mostly: 95}}", ["'mostly'", "0.mostly: 95"]),
        (f"- {{{BETWEEN}, meta: {{a: 1}}}}", ["no argument 'meta'"]),
        (
            "- {type: unexpected_rows_expectation, unexpected_rows_query: x, severity: critical}",
            ["for a table in memory", "unexpected_rows_expectation"],
        ),
    ],
)
def test_a_wrong_suite_says_what_to_edit(
    suite: str, says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    SUITE.write_text(suite)
    with pytest.raises(UserError) as caught:
        check_expectations(in_memory(TABLE), SUITE, "rows.csv", OUT)
    said = "\n".join(format_problem(with_location(problem)) for problem in caught.value.problems)
    for words in says:
        assert words in said, said
    assert not list(OUT.iterdir())
    assert capsys.readouterr() == ("", "")


def test_all_mistakes_of_a_suite_are_said_at_once() -> None:
    said = screen(BETWEEN.replace("age", "agee"), BETWEEN, BETWEEN.replace("min_value", "minimum"))
    assert "suite.yaml:2  0.column" in said
    assert "suite.yaml:4  2.minimum" in said


def test_mistakes_of_every_kind_are_said_at_once() -> None:
    wrong = BETWEEN.replace("critical", "critcal").replace("age", "agee")
    said = screen("column: age", wrong, BETWEEN.replace("min_value", "minimum"))
    for place in ("2  0.type", "2  0.severity", "3  1.severity", "3  1.column", "4  2.minimum"):
        assert f"suite.yaml:{place}" in said, said
    assert said.index("0.type") < said.index("1.column") < said.index("2.minimum")


def test_nothing_can_be_said_of_what_is_inside_an_image() -> None:
    table = pl.DataFrame({"image": np.zeros((3, 2, 2), dtype=np.uint8)})
    said = screen(about("mean_to_be_between", "image", ", min_value: 1"), table=table)
    assert "'image' holds Array(UInt8, shape=(2, 2))" in said
    assert "expect_column_values_to_be_unique" in said


def test_the_suite_of_another_table_is_one_edit_of_params() -> None:
    error = UserError(Problem("the table has no column 'image'", "0.column", file="suite.yaml"))
    rules: list[Rule | None] = [
        Rule.model_validate(
            {"type": "expect_column_values_to_be_unique", "column": name, "severity": "critical"}
        )
        for name in ("id", "image")
    ]
    table = pl.DataFrame({"Age": [1, 2]})
    first, *_ = _of_other_table(error, rules, table.columns, SUITE).problems
    assert first.key == "prepare.expectations"
    assert "'id', 'image'" in first.message
    assert "null" in first.allowed
    # One that is misspelt is mended in the suite.
    right = pl.DataFrame({"id": [1], "picture": [2]})
    assert _of_other_table(error, rules, right.columns, SUITE) is error
