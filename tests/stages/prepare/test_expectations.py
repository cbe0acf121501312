"""The raw table against its suite: what stops the stage, what it says, and the page it leaves."""

import datetime
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.common.errors import Problem, UserError, format_problem
from stages.common.yamlfile import read_yaml, with_location
from stages.prepare.expectations.column_profile import describe
from stages.prepare.expectations.run import (
    FAILED_PAGE,
    MAX_FAILURES_SHOWN,
    _of_other_table,
    check_expectations,
)
from stages.prepare.expectations.sentences import sentence
from stages.prepare.expectations.suite import Rule
from stages.prepare.table.table import in_memory
from tests.conftest import ROOT, Project

SUITE = Path("suite.yaml")
OUT = Path("out")
TABLE = pl.DataFrame(
    {
        "id": [10, 11, 12, 13, 13, None],
        "age": [31.0, 47.5, -2.0, 131.0, 131.0, 60.0],
        "job": ["nurse", "cook", "<script>alert(1)</script>", "cook ", None, "nurse"],
    }
)

# Runs a suite on its own: prints what was connected to and which heavy modules were loaded.
ALONE = """
import sys
from pathlib import Path
connected = []
sys.addaudithook(lambda event, args: connected.append(args) if event == "socket.connect" else None)
sys.path.insert(0, sys.argv[1])
import polars as pl
from stages.prepare.expectations.run import check_expectations
from stages.prepare.table.table import in_memory
table = in_memory(pl.read_csv("table.csv"))
check_expectations(table, Path("suite.yaml"), "table.csv", Path("out"))
loaded = [name for name in ("great_expectations", "pandas") if name in sys.modules]
print("connected", connected, "loaded", loaded)
"""


class Tags(HTMLParser):
    """Collects the tags of a page, each with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder for each test, as a stage would find the repository's root."""
    monkeypatch.chdir(tmp_path)
    OUT.mkdir()
    return tmp_path


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


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.tags


BETWEEN = about("values_to_be_between", rest=", min_value: 0, max_value: 120")


@pytest.mark.parametrize("name", ["digits", "diabetes", "breast_cancer"])
def test_the_bundled_tables_meet_their_suites(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = ROOT / "data" / "raw"
    table = pl.read_parquet(raw / f"{name}.parquet")
    check_expectations(in_memory(table), raw / f"{name}.expectations.yaml", name, OUT)
    counts = json.loads((OUT / "expectations.json").read_text())
    assert (counts["rows"], counts["columns"]) == table.shape
    assert counts["passed"] == counts["expectations"] > 5
    assert counts["warnings"] == 0
    assert capsys.readouterr() == ("", "")


def test_a_critical_failure_says_what_where_and_how_often() -> None:
    said = screen(about("values_to_not_be_null"), BETWEEN)
    assert "rows.csv does not meet suite.yaml: 1 critical of 2" in said
    assert "'age' is between 0 and 120: fails in 3 of 6 rows (50 %)" in said
    assert "such as -2.0 (row 2); 131.0 (rows 3, 4)" in said
    assert "suite.yaml:3  1.type: expect_column_values_to_be_between" in said
    assert str(FAILED_PAGE) in said
    assert "prepare.source" in said
    assert not list(OUT.iterdir())


def test_the_failing_page_shows_the_failure_first_and_goes_when_all_is_well() -> None:
    screen(about("values_to_not_be_null"), BETWEEN)
    page = FAILED_PAGE.read_text()
    assert "1 critical not met, 1 of 2 expectations met" in page
    assert page.index("not met</span>") < page.index(">met</span>")
    assert "131.0 (rows 3, 4)" in page
    check(about("values_to_not_be_null"))
    assert not FAILED_PAGE.exists()


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


def test_the_page_shows_numbers_of_any_size() -> None:
    # Hash ids lie closer together than float64 can tell, and some numbers have 300 digits.
    hashes = pl.Series("hash", [2**63 + number for number in range(5)], dtype=pl.UInt64)
    assert describe(hashes).bars == ()
    assert describe(hashes).facts[0] == ("min", "9,223,372,036,854,775,808")
    huge = describe(pl.Series([1e300, -1e300, 1e308, 1e308]))
    assert huge.facts == (("min", "-1e+300"), ("mean", "inf"), ("max", "1e+308"))


def test_the_page_needs_nothing_else_and_escapes_what_it_shows() -> None:
    nasty = TABLE.rename({"job": "<img src=x>"})
    rules = [
        about("values_to_match_regex", "<img src=x>", ", regex: '<i>&'", severity="warning"),
        about("values_to_not_be_null", rest=", description: <b>bold</b>"),
    ]
    SUITE.write_text("".join(f"- {{{rule}}}\n" for rule in rules))
    check_expectations(in_memory(nasty), SUITE, "<a href='https://example.org'>.csv", OUT)
    page = (OUT / "expectations.html").read_text(encoding="utf-8")
    found = tags(page)
    assert not {"script", "link", "img", "iframe", "i", "a"} & {tag for tag, _ in found}
    # One a column.
    assert [tag for tag, _ in found].count("b") == nasty.width
    named = {name for _, attributes in found for name in attributes}
    assert not named & {"src", "href", "onload", "onclick"}
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "prefers-color-scheme: dark" in style[1]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_an_empty_suite_is_met_without_great_expectations() -> None:
    for suite in ("[]\n", "# nothing yet\n"):
        SUITE.write_text(suite)
        TABLE.write_csv("table.csv")
        done = run_alone()
        assert done.stdout == "connected [] loaded []\n", done.stderr
        counts = json.loads((OUT / "expectations.json").read_text())
        assert counts == {"rows": 6, "columns": 3, "expectations": 0, "passed": 0, "warnings": 0}
        assert "No expectations" in (OUT / "expectations.html").read_text()


def test_the_suite_of_another_table_is_one_edit_of_params() -> None:
    error = UserError(Problem("the table has no column 'image'", "0.column", file="suite.yaml"))
    rules: list[Rule | None] = [
        Rule.model_validate(
            {"type": "expect_column_values_to_be_unique", "column": name, "severity": "critical"}
        )
        for name in ("id", "image")
    ]
    table = pl.DataFrame({"Age": [1, 2]})
    first, *_ = _of_other_table(error, rules, table, SUITE).problems
    assert first.key == "prepare.expectations"
    assert "'id', 'image'" in first.message
    assert "null" in first.allowed
    # One that is misspelt is mended in the suite.
    right = pl.DataFrame({"id": [1], "picture": [2]})
    assert _of_other_table(error, rules, right, SUITE) is error


def test_two_runs_write_the_same_bytes_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TABLE.write_csv("table.csv")
    # More values than Great Expectations lists, which it takes in the order of a set.
    many = f", value_set: {[f'job {n}' for n in range(40)]}"
    few = ", value_set: [a, b, c, nurse]"
    rules = [
        about("distinct_values_to_contain_set", "job", many, "warning"),
        about("distinct_values_to_equal_set", "job", few, "warning"),
        about("values_to_be_between", "age", ", min_value: 0", "warning"),
    ]
    SUITE.write_text("".join(f"- {{{rule}}}\n" for rule in rules))
    check_expectations(in_memory(pl.read_csv("table.csv")), SUITE, "table.csv", OUT)
    said = capsys.readouterr().out
    assert "40 missing\n" in said
    assert "3 missing (a, b, c)" in said
    written = {file.name: file.read_bytes() for file in OUT.iterdir()}
    # Another order of sets than in this process.
    done = run_alone(PYTHONHASHSEED="2" if os.environ.get("PYTHONHASHSEED") == "1" else "1")
    assert {file.name: file.read_bytes() for file in OUT.iterdir()} == written
    assert done.stderr == ""
    assert done.stdout == f"{said}connected [] loaded ['great_expectations', 'pandas']\n"
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {"table.csv", "suite.yaml", "out/expectations.html", "out/expectations.json"}


def run_alone(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the suite in a process of its own, with an empty home under the working folder."""
    home = Path("home").resolve()
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(ROOT)],
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_stage_writes_the_page_or_stops_with_it(fresh: Callable[[str], Project]) -> None:
    project = fresh("project")
    done = project.run("python", "-m", "stages.prepare")
    assert done.stderr == ""
    counts = json.loads((project.path / "data/prepare/expectations.json").read_text())
    assert counts["passed"] == counts["expectations"]
    written = project.outputs()

    source = project.path / "data/raw/digits.parquet"
    table = pl.read_parquet(source)
    table.with_columns(label=pl.when(pl.col("id") == 7).then(12).otherwise("label")).write_parquet(
        source
    )
    done = project.run("python", "-m", "stages.prepare", ok=False)
    assert "1 too many (12)" in done.stderr
    assert "data/raw/digits.expectations.yaml:14  7.type" in done.stderr
    assert "1 too many (12)" in (project.path / FAILED_PAGE).read_text()
    assert project.outputs() == written


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (BETWEEN, "'age' is between 0 and 120"),
        (f"{BETWEEN}, strict_min: true", "'age' is above 0 and at most 120"),
        (f"{BETWEEN}, mostly: 0.95", "'age' is between 0 and 120 in at least 95 % of the rows"),
        (f"{BETWEEN}, row_condition: id > 3", "'age' is between 0 and 120 where id > 3"),
        (f"{BETWEEN}, description: ages are human", "'age' is between 0 and 120"),
        (
            about("values_to_be_in_set", rest=f", value_set: {list(range(12))}"),
            "'age' is one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more",
        ),
        (
            about("values_to_be_increasing", rest=", strictly: true"),
            "'age': values to be increasing (strictly True)",
        ),
        (
            "type: expect_column_pair_values_a_to_be_greater_than_b, column_A: a, column_B: b, "
            "or_equal: true, severity: warning",
            "'a' is at least 'b'",
        ),
        (
            "type: expect_of_a_later_version, column_list: [a, b], depth: 3, severity: warning",
            "'a' and 'b': of a later version (depth 3)",
        ),
    ],
)
def test_expectations_are_told_in_words(rule: str, words: str) -> None:
    SUITE.write_text(f"{{{rule}}}")
    told = sentence(Rule.model_validate(read_yaml(SUITE)), "'{}'".format, str)
    assert told == words
