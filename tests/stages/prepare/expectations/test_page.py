"""The page of a suite: what failed first, numbers of any size, nothing from elsewhere."""

import re
from html.parser import HTMLParser

import polars as pl
import pytest

from stages.common.yamlfile import read_yaml
from stages.prepare.expectations.column_profile import describe
from stages.prepare.expectations.run import FAILED_PAGE, check_expectations
from stages.prepare.expectations.sentences import sentence
from stages.prepare.expectations.suite import Rule
from stages.prepare.table.table import in_memory
from tests.stages.prepare.expectations.suites import (
    BETWEEN,
    OUT,
    SUITE,
    TABLE,
    about,
    check,
    screen,
)


class Tags(HTMLParser):
    """Collects the tags of a page, each with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    return parser.tags


def test_the_failing_page_shows_the_failure_first_and_goes_when_all_is_well() -> None:
    screen(about("values_to_not_be_null"), BETWEEN)
    page = FAILED_PAGE.read_text()
    assert "1 critical not met, 1 of 2 expectations met" in page
    assert page.index("not met</span>") < page.index(">met</span>")
    assert "131.0 (rows 3, 4)" in page
    check(about("values_to_not_be_null"))
    assert not FAILED_PAGE.exists()


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
