"""Times of day, durations, quarters and weeks in texts, and days in whole numbers.

They are no dates as they stand: each is said with what makes numbers or dates of them.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np
import polars as pl

from stages.common.counts import counted, either
from stages.features.columns import as_category
from stages.features.dates.columns import parse
from stages.features.spelling import as_line
from stages.features.times import ISO, read_text, write_text
from stages.prepare.columns.looks import MAJORITY, TEXTS, say_line

_CLOCK = r"^[0-9]{1,2}:[0-9]{2}(?:\.[0-9]+)?$"
_LONG = r"^[0-9]{1,3}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?$"
_QUARTER = r"^[1-9][0-9]{3}[ _/-]?[Qq][1-4]$|^[Qq][1-4][ _/-]?[1-9][0-9]{3}$"
_WEEK = r"^[1-9][0-9]{3}[ _/-]?[Ww](?:0?[1-9]|[1-4][0-9]|5[0-3])$"
_MONTH = r"^[1-9][0-9]{3}[ _/-]?[Mm](?:0?[1-9]|1[0-2])$"
_SECONDS = "write a number of seconds in the file"
_LETTERS = {"Q": "quarters", "W": "weeks", "M": "months"}
DAYS = "%Y%m%d"
# The first and the last whole number that may be a day: of these centuries, as months are.
_FIRST_DAY, _LAST_DAY = 19_000_101, 20_991_231
# What expires or falls due lies nearer.
_FAR_AHEAD_SECONDS = 10 * 365.2425 * 86_400


def find_periods(texts: pl.Series) -> tuple[str, str] | None:
    """The name of what more than half of the texts are, and what helps; None: neither of these."""
    there = texts.drop_nulls()

    def are_most(pattern: str) -> bool:
        return bool(there.str.contains(pattern).sum() > MAJORITY * there.len())

    if are_most(_LONG):
        return "times of day or durations", _SECONDS
    if are_most(f"{_CLOCK}|{_LONG}"):
        what = "times of day, durations or ratios"
        return what, f"{_SECONDS}, and of a ratio its quotient"
    for pattern in (_QUARTER, _WEEK, _MONTH):
        if are_most(pattern):
            first = there.filter(there.str.contains(pattern))[0]
            letter, day = _first_day(first)
            what = _LETTERS[letter]
            return what, f"write the first day of each in the file, of {first!r} {day}"
    return None


def say_periods(column: pl.Series) -> str | None:
    """A reason for leaving out texts that are times or periods, with what helps; None: others."""
    if column.dtype not in TEXTS:
        return None
    texts = as_category(column).drop_nulls()
    if (found := find_periods(texts)) is None:
        return None
    what, remedy = found
    shown = ", ".join(map(repr, texts.unique(maintain_order=True).head(3)))
    return f"{what}, as {shown}: {remedy}"


def _first_day(text: str) -> tuple[str, date]:
    """The letter of a period, and its first day; that of a week is a Monday."""
    if text[0] in "Qq":
        letter, number, year = "Q", int(text[1]), int(text[-4:])
    else:
        ((letter, digits),) = re.findall(r"([QWM])([0-9]{1,2})$", text.upper())
        number, year = int(digits), int(text[:4])
    if letter == "W":
        return letter, date.fromisocalendar(year, min(number, 52), 1)
    return letter, date(year, 3 * number - 2 if letter == "Q" else number, 1)


def say_days(column: pl.Series, words: Sequence[object]) -> str | None:
    """A line on numbers that are all days, written as 20190104; None for others.

    `words` are those for gaps, which the column no longer has.
    """
    known = column.cast(pl.Float64).drop_nulls().drop_nans()
    if not known.is_between(_FIRST_DAY, _LAST_DAY).all():
        return None
    numbers = as_category(column).drop_nulls().unique(maintain_order=True)
    if numbers.len() < 2 or not parse(numbers, DAYS).fits.all():
        return None
    first = numbers[0]
    day = write_text(read_text(first, DAYS)[0], ISO, aware=False)
    line = say_line(column.name, words, "datetime", form=DAYS)
    return (
        f"'{column.name}' seems to hold days, taken as numbers: {first} is {day}; if they are "
        f"dates, {line}; if numbers are meant, {as_line(column.name, 'numeric')}"
    )


def say_short_years(column: pl.Series, form: str | None, now: datetime | None = None) -> str | None:
    """A line on dates far ahead whose years have two digits, such as births in 2045; or None."""
    if form is None or "%y" not in form or column.dtype not in TEXTS:
        return None
    texts = as_category(column).drop_nulls()
    seconds = parse(texts, form).seconds
    late = seconds > (now or datetime.now(UTC)).timestamp() + _FAR_AHEAD_SECONDS
    if not late.any():
        return None
    last = int(np.nanargmax(seconds))
    day = write_text(float(seconds[last]), ISO, aware=False)
    lie = f"{counted(int(late.sum()), 'date')} {either(int(late.sum()), 'lies', 'lie')}"
    return (
        f"of '{column.name}' {lie} ten years ahead or more, the last {texts[last]!r}, taken as "
        f"{day}: two digits of a year are 1969 to 2068; if they are past, write years of four "
        f"digits in the file; if they are meant, {as_line(column.name, 'datetime')}"
    )
