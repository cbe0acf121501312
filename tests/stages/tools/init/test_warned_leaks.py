"""Columns that tell the target, or nearly: left out or warned of."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.support.stages.looks import NUM_ROWS, RANDOM, line, look, ships


def test_a_column_that_nearly_tells_the_target_is_kept_and_warned_of(tmp_path: Path) -> None:
    table = ships()
    wrong = pl.Series(np.arange(NUM_ROWS) == 7)
    boat = table["Survived"].replace({"yes": "7", "no": "none"}).set(wrong, "none")
    found = look(tmp_path, table.with_columns(boat=boat))
    assert line(found, "boat")["role"] == "categorical"
    (warning,) = line(found, "boat")["warnings"]
    assert warning.startswith("'boat' alone tells 9")
    assert "boat" not in found["values"]["prepare.columns"]


@pytest.mark.parametrize("kind", ["numbers", "dates", "texts", "few"])
def test_a_column_that_only_one_class_fills_is_a_leak(tmp_path: Path, kind: str) -> None:
    table = ships()
    days = pl.Series([date(1912, 1, 1) + timedelta(days=day) for day in range(NUM_ROWS)])
    values = {
        "numbers": pl.Series(RANDOM.normal(0, 1, NUM_ROWS)),
        "dates": days.cast(pl.String),
        "texts": pl.Series([f"was seen {row} times by {row * 7} men" for row in range(NUM_ROWS)]),
        "few": days,
    }[kind]
    fills = table["Survived"] == "yes"
    if kind == "few":
        # As a fraud that hardly ever happens.
        fills = pl.Series(np.arange(NUM_ROWS) % 45 < 2)
        table = table.with_columns(Survived=fills.replace_strict({True: "yes", False: "no"}))
    found = look(tmp_path, table.with_columns(paid=values.zip_with(fills, pl.Series([None]))))
    assert line(found, "paid")["why"].startswith(
        "a value or a gap in it tells the target all alone"
    )
    assert found["values"]["prepare.columns"]["paid"] == "exclude"


@pytest.mark.parametrize("gap", [None, np.nan])
def test_gaps_that_nearly_tell_the_target_are_warned_of(tmp_path: Path, gap: float | None) -> None:
    table = ships()
    fills = table["Survived"] == "yes"
    odd = next(row for row in range(1, NUM_ROWS, 2) if not fills[row])
    fills = fills.set(pl.Series(np.arange(NUM_ROWS) == odd), value=True)
    numbers = pl.Series(RANDOM.normal(0, 1, NUM_ROWS))
    paid = numbers.zip_with(fills, pl.Series([gap], dtype=pl.Float64))
    found = look(tmp_path, table.with_columns(paid=paid))
    (warning,) = line(found, "paid")["warnings"]
    assert warning.startswith("a value or a gap in 'paid' alone tells 9")


def test_gaps_by_chance_are_no_leak(tmp_path: Path) -> None:
    found = look(tmp_path, ships())
    assert line(found, "Age")["role"] == "numeric"
    assert not line(found, "Age")["warnings"]
