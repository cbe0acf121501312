"""A small table held to a suite of a few lines, in the working folder."""

import json
from pathlib import Path

import polars as pl
import pytest

from stages.common.errors import UserError, format_problem
from stages.common.yamlfile import with_location
from stages.prepare.expectations.run import check_expectations
from stages.prepare.table.table import in_memory

SUITE = Path("suite.yaml")
OUT = Path("out")
TABLE = pl.DataFrame(
    {
        "id": [10, 11, 12, 13, 13, None],
        "age": [31.0, 47.5, -2.0, 131.0, 131.0, 60.0],
        "job": ["nurse", "cook", "<script>alert(1)</script>", "cook ", None, "nurse"],
    }
)


def check(*rules: str, table: pl.DataFrame = TABLE) -> dict[str, int]:
    """Hold `table` to the suite of these lines; return what expectations.json says."""
    SUITE.write_text("# The suite.\n" + "".join(f"- {{{rule}}}\n" for rule in rules) or "[]")
    check_expectations(in_memory(table), SUITE, "rows.csv", OUT)
    counts: dict[str, int] = json.loads((OUT / "expectations.json").read_text())
    return counts


def screen(*rules: str, table: pl.DataFrame = TABLE) -> str:
    """What a user reads of a suite that stops the stage."""
    with pytest.raises(UserError) as caught:
        check(*rules, table=table)
    return "\n".join(format_problem(with_location(problem)) for problem in caught.value.problems)


def about(type_: str, column: str = "age", rest: str = "", severity: str = "critical") -> str:
    return f"type: expect_column_{type_}, column: {column}, severity: {severity}{rest}"


BETWEEN = about("values_to_be_between", rest=", min_value: 0, max_value: 120")
