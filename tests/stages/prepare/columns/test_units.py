"""Texts with units, and others that have none."""

import polars as pl
import pytest

from stages.prepare.columns.units import say_numbers

ROWS = range(60)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    "texts",
    [
        [f"{n % 9 + 1}{LETTERS[n % 26]}Jq5{LETTERS[n % 7]}XK{n}Ln{LETTERS[n % 5]}" for n in ROWS],
        [f"3{n * 7919:08d}{'X' if n % 11 == 3 else n % 10}" for n in ROWS],
        [f"{1960 + n // 12} {['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun'][n % 6]}" for n in ROWS],
        [f"{n}.7,{n % 13}.2" for n in ROWS],
        [f"{n} {LETTERS[n % 26]}street" for n in ROWS],
    ],
)
def test_ids_codes_months_and_pairs_are_no_numbers_with_units(texts: list[str]) -> None:
    assert say_numbers(pl.Series("x", texts)) is None


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([f"{n} {'kg' if n % 2 else 'g'}" for n in ROWS], "write one unit behind each in the file"),
        ([f"{n}.5 GB" if n % 3 else f"{n} MB" for n in ROWS], "as '0 MB', '1.5 GB', '2.5 GB'"),
        ([f"{n} days" if n != 1 else "1 day" for n in ROWS], "write one unit behind each"),
        ([f"{n},{n % 90 + 10},500" for n in range(1, 60)], "write them as 1234.5 in the file"),
        ([f"{n} kg" if n % 9 else "VB" for n in ROWS], "unit: 'kg', missing: ['VB']"),
    ],
)
def test_a_few_units_are_said_with_what_helps(texts: list[str], says: str) -> None:
    assert says in str(say_numbers(pl.Series("x", texts)))
