"""Spellings of one category or class, which only a person can call the same."""

import polars as pl

from stages.prepare.columns.infer_schema import find_schema
from stages.prepare.columns.variants import find_variants
from tests.support.samples import prepare_params

TABLE = pl.DataFrame(
    {
        "town": ["New York", "new  york", "Oslo", " Oslo"] * 30,
        "code": ["a", "b", "c", "d"] * 30,
        "y": ["yes", "YES ", "no", "yes"] * 30,
    }
)


def said(**columns: str) -> list[str]:
    params = prepare_params(columns=columns)
    return list(find_variants(TABLE, find_schema(TABLE, params), params))


def test_variants_of_case_and_blanks_are_told_with_their_rows() -> None:
    town, answer = said()
    assert town == (
        "'town' has categories that differ in their case or blanks alone, and each counts for "
        "itself: 'New York' (30), 'new  york' (30); if they mean the same, write them alike in "
        "the file; if not, columns: {town: categorical}"
    )
    assert answer.startswith("'y' has classes that")
    assert "'yes' (60), 'YES' (30);" in answer


def test_variants_that_are_meant_are_not_told() -> None:
    assert said(town="categorical", y="categorical") == []
