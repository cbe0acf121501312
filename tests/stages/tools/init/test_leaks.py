"""Columns that tell the target all alone, as `reprise init` judges them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.tools.init.leaks import LEAK, as_answers, tell_by_gaps, tell_by_values
from stages.tools.init.options import Options
from stages.tools.init.survey import survey

NUM_ROWS = 400
ROWS = np.arange(NUM_ROWS)
HAPPENS = ROWS % 21 == 0


def look(folder: Path, **columns: object) -> dict[str, Any]:
    """What init finds of the column x, beside another one and the target y."""
    noise = np.random.default_rng(0).normal(size=NUM_ROWS)
    path = folder / "t.parquet"
    pl.DataFrame({"noise": noise, **columns}).write_parquet(path)
    found = survey(Options(str(path), "y"))
    line: dict[str, Any] = next(each for each in found["columns"] if each["name"] == "x")
    return line


def where(rows: np.ndarray, value: object) -> pl.Series:
    return pl.Series([value if each else None for each in rows])


@pytest.mark.parametrize("row", [21, 42])
@pytest.mark.parametrize("kind", ["date", "few"])
def test_one_row_that_contradicts_a_gap_is_enough(tmp_path: Path, row: int, kind: str) -> None:
    """Be it even or odd, and the column's value always the same or another in each row."""
    y = np.where(HAPPENS, "paid", "open")
    filled = (y == "paid") & (row != ROWS)
    x = where(filled, 1).set(pl.Series(filled & (ROWS > 200)), 2)
    if kind == "date":
        x = pl.Series([float(n) if each else None for n, each in enumerate(filled)])
    line = look(tmp_path, x=x, y=y)
    assert line["role"] == "numeric"
    assert line["warnings"] == []


def test_a_leak_rests_on_more_rows_than_a_few(tmp_path: Path) -> None:
    y = np.random.default_rng(1).normal(50, 1, NUM_ROWS)
    two = np.isin(ROWS, (7, 8))
    line = look(tmp_path, x=where(two, 1.5), y=np.where(two, 1e9, y))
    assert line["role"] != "left out"
    (warning,) = line["warnings"]
    assert warning.startswith("a value or a gap in 'x' alone tells 100.0% of the target")
    line = look(tmp_path, x=where(HAPPENS, 1.5), y=np.where(HAPPENS, 1e9, y))
    assert line["setting"] == "exclude"


def test_rows_that_alternate_hide_no_leak(tmp_path: Path) -> None:
    won = np.where(ROWS % 2 == 0, "won", "lost")
    line = look(tmp_path, x=np.where(ROWS % 2 == 0, "home", "away"), y=won)
    assert (line["role"], line["setting"]) == ("left out", "exclude")


def test_of_classes_that_are_as_frequent_the_first_is_said() -> None:
    # The bin b has two of each; all in all there are as many u as v.
    x = pl.Series("x", ["a"] * 40 + ["b"] * 8 + ["c"] * 40)
    y = pl.Series("y", ["u"] * 40 + ["u", "u", "v", "v"] * 2 + ["v"] * 40)
    answers = as_answers(y, is_class=True)
    (share,) = {tell_by_values(x, answers).share for _ in range(5)}
    assert share == pytest.approx(40 / 44, abs=0.02)
    gaps = x.replace("b", None).replace({"a": "c"})
    assert {tell_by_gaps(gaps, answers).share for _ in range(5)} == {0.0}


@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
def test_the_share_that_a_column_tells_is_measured_on_other_rows(noise: float) -> None:
    random = np.random.default_rng(2)
    amount = random.normal(size=20_000)
    column = pl.Series("x", amount + noise * random.normal(size=20_000))
    told = tell_by_values(column, as_answers(pl.Series("y", amount), is_class=False))
    # What a bin leaves untold is its width.
    assert told.share == pytest.approx(1 / (1 + noise**2), abs=0.03)
    names = pl.Series("x", [f"row {n}" for n in range(1000)])
    assert tell_by_values(names, amount[:1000]).share == 0


def test_the_sign_of_a_number_is_found_in_a_short_table() -> None:
    x = np.random.default_rng(3).normal(size=800)
    y = pl.Series("y", np.where(x > 0, "yes", "no"))
    assert tell_by_values(pl.Series("x", x), as_answers(y, is_class=True)).share > LEAK
