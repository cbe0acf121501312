"""A part of a table is read from its Arrow file as polars would read it, of whatever types."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stages.prepare.table.read_part import read_part

PLAIN = pl.DataFrame(
    {
        "": [1, 2, None],
        "text": ["a", None, "longer than a view holds"],
        "flag": [True, None, False],
        "number": [0.5, float("nan"), None],
        "small": pl.Series([1, 2, 3], dtype=pl.UInt8),
    }
)
OTHERS = pl.DataFrame(
    {
        "wide": pl.Series([2**70, None, 1], dtype=pl.Int128),
        "word": pl.Series(["a", "b", None], dtype=pl.Categorical),
        "day": [date(2024, 1, 1), None, date(2024, 1, 2)],
        "list": [[1], None, [2, 3]],
        "text": ["a", "b", "c"],
    }
)


@pytest.mark.parametrize("table", [PLAIN, OTHERS, pl.concat([PLAIN, PLAIN], rechunk=False)])
def test_a_part_comes_back_as_it_was_written(table: pl.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "part.arrow"
    table.write_ipc(file)
    for names in (table.columns, table.columns[:2], ["text", "none"]):
        there = [name for name in table.columns if name in names]
        assert_frame_equal(read_part(file, names), table.select(there))


def test_rows_outlive_their_file(tmp_path: Path) -> None:
    file = tmp_path / "part.arrow"
    PLAIN.write_ipc(file)
    rows = read_part(file, PLAIN.columns)
    file.unlink()
    assert_frame_equal(rows, PLAIN)
