"""Times of day, durations, quarters and weeks in texts, and days in whole numbers."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from ruamel.yaml import YAML

from stages.prepare.columns.periods import say_short_years
from stages.tools.init.columns import say_looks
from tests.support.stages.doubts import found, table_of

ROWS = range(120)


@pytest.mark.parametrize(
    ("texts", "what", "remedy"),
    [
        (
            [f"{n % 24:02d}:{n % 60:02d}" for n in ROWS],
            "times of day, durations or ratios",
            "write a number of seconds in the file, and of a ratio its quotient",
        ),
        (
            [f"{n % 3}:{n % 60:02d}:{n % 7:02d}" for n in ROWS],
            "times of day or durations",
            "write a number of seconds in the file",
        ),
        ([f"{2000 + n // 4} Q{1 + n % 4}" for n in ROWS], "quarters", "of '2000 Q1' 2000-01-01"),
        ([f"{2000 + n // 4}Q{4 - n % 4}" for n in ROWS], "quarters", "of '2000Q4' 2000-10-01"),
        ([f"Q{1 + n % 4}-{2000 + n // 4}" for n in ROWS], "quarters", "of 'Q1-2000' 2000-01-01"),
        ([f"Q{1 + n % 4}{2011 + n // 4}" for n in ROWS], "quarters", "of 'Q12011' 2011-01-01"),
        ([f"1991 W{6 + n % 40:02d}" for n in ROWS], "weeks", "of '1991 W06' 1991-02-04"),
        ([f"{2000 + n // 12}M{1 + n % 12:02d}" for n in ROWS], "months", "of '2000M01' 2000-01-01"),
    ],
)
def test_times_and_periods_are_said_with_what_helps(
    tmp_path: Path, texts: list[str], what: str, remedy: str
) -> None:
    table = table_of(tmp_path, texts)
    (line,) = found(table)[1]
    assert line.startswith(f"'x' holds {what}, taken as ")
    assert f"{remedy}, or columns: {{x: exclude}}; if that is meant, columns: {{x: cat" in line
    assert found(table, columns={"x": "categorical"})[1] == []
    # Init leaves such a column out for the same reason.
    reason = str(say_looks(pl.Series("x", texts)))
    assert reason.startswith(f"{what}, as '{texts[0]}', ")
    assert reason.endswith(remedy)


def test_codes_are_no_periods() -> None:
    for texts in (
        ["2000Q7", "1234Q9"],
        ["0000Q1", "Q20000"],
        ["a1:30", "b2:30"],
        ["Q1", "Q2"],
        ["1:2", "3:4"],
    ):
        assert say_looks(pl.Series("x", texts * 20)) is None


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Int32, pl.Float64])
def test_whole_numbers_that_are_all_days_are_said_with_the_line_that_makes_dates(
    dtype: type[pl.DataType],
) -> None:
    days = [date(2019, 1, 4) + timedelta(n * n) for n in range(60)]
    numbers = pl.Series([*(int(day.strftime("%Y%m%d")) for day in days[1:]), None], dtype=dtype)
    table = pl.DataFrame({"d": numbers, "y": ["a", "b"] * 30})
    (line,) = found(table)[1]
    advice = "columns: {d: {kind: datetime, format: '%Y%m%d'}}"
    assert line == (
        "'d' seems to hold days, taken as numbers: 20190105 is 2019-01-05; if they are dates, "
        f"{advice}; if numbers are meant, columns: {{d: numeric}}"
    )
    schema, said = found(table, **YAML(typ="safe").load(advice))
    assert (schema.features[0].kind, said) == ("datetime", [])
    assert found(table, columns={"d": "numeric"})[1] == []
    gaps = table.with_columns(pl.col("d").fill_null(-1))
    (line,) = found(gaps, columns={"d": {"missing": [-1]}})[1]
    advice = "columns: {d: {kind: datetime, format: '%Y%m%d', missing: ['-1']}}"
    assert advice in line
    assert found(gaps, **YAML(typ="safe").load(advice))[1] == []
    # One that is no day makes numbers of all.
    other = table.with_columns(pl.col("d").replace(20190105, 20190132))
    assert found(other)[1] == []


def test_years_of_two_digits_that_lie_far_ahead_are_said() -> None:
    births = pl.Series("born", ["03/07/45", "21/11/52", "14/02/71", "30/08/99", None] * 8)
    table = pl.DataFrame({"born": births, "y": ["a", "b"] * 20})
    assert found(table)[0].features[0].format == "%d/%m/%y"
    line = say_short_years(births, "%d/%m/%y", datetime(2026, 1, 1, tzinfo=UTC))
    assert line == (
        "of 'born' 16 dates lie ten years ahead or more, the last '21/11/52', taken as 2052-11-21: "
        "two digits of a year are 1969 to 2068; if they are past, write years of four digits in "
        "the file; if they are meant, columns: {born: datetime}"
    )
    assert say_short_years(births, "%d/%m/%y", datetime(2050, 1, 1, tzinfo=UTC)) is None
    # Until 2058.
    late = table.with_columns(born=births.str.replace("45|52", "68"))
    assert len(found(late)[1]) == 1
    assert found(late, columns={"born": "datetime"})[1] == []
    assert found(late.with_columns(pl.col("born").str.replace("/(..)$", "/20$1")))[1] == []
