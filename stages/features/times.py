"""Dates and times in texts: their formats, and the seconds since 1970 that they are; NumPy alone.

A format is written as `strftime` has it. `ISO` stands for those of ISO 8601: `2024-01-31`, with a
time behind it or not, and with an offset from UTC or not; those of `UNIX` are numbers.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from stages.features.schema import Cycle

ISO: Final = "ISO 8601"
# Numbers since 1970 in UTC: how many are a second, and the group of a pattern that has them.
UNIX: Final = {"unix": (1, "seconds"), "unix ms": (1_000, "milliseconds")}
DAY = 86_400.0
# Beyond the years 1 to 9999 there is no date.
FIRST, LAST = -62_135_596_800.0, 253_402_300_800.0
PERIODS: Final[dict[Cycle, float]] = {"year": 365.2425 * DAY, "week": 7 * DAY, "day": DAY}
# Of a cycle: what lies no further apart in it is at the same place.
SAME_PLACE = 0.01
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_OFFSET = r"(?P<offset>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)"
DIRECTIVES: Final = {
    "%Y": r"(?P<year>[0-9]{4})",
    "%y": r"(?P<short>[0-9]{2})",
    "%m": r"(?P<month>[0-9]{1,2})",
    "%b": r"(?P<name>[A-Za-z]{3,9})\.?",
    "%B": r"(?P<name>[A-Za-z]{3,9})\.?",
    "%d": r"(?P<day>[0-9]{1,2})",
    "%H": r"(?P<hour>[0-9]{1,2})",
    "%I": r"(?P<twelve>[0-9]{1,2})",
    "%M": r"(?P<minute>[0-9]{1,2})",
    "%S": r"(?P<second>[0-9]{1,2})",
    "%f": r"(?P<fraction>[0-9]{1,9})",
    "%p": r"(?P<half>[AaPp]\.?[Mm]\.?)",
    "%z": _OFFSET,
    "%%": "%",
}
_ISO = (
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
    r"(?:[Tt ] ?(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})"
    rf"(?::(?P<second>[0-9]{{2}})(?:[.,](?P<fraction>[0-9]{{1,9}}))?)? ?{_OFFSET}?)?"
)
_DATES = (
    *("%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d/%m/%y", "%m/%d/%y", "%y/%m/%d"),
    *("%d.%m.%Y", "%m.%d.%Y", "%Y.%m.%d", "%d.%m.%y", "%m.%d.%y"),
    *("%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d"),
    *("%d %b %Y", "%d. %b %Y", "%d-%b-%Y", "%d-%b-%y", "%b %d, %Y", "%b %d %Y"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
# Months, each of which is its first day: of a column whose every text is one.
MONTHS: Final = (
    *("%m/%Y", "%Y/%m", "%m.%Y", "%m-%Y", "%Y-%m"),
    *("%b %Y", "%b-%Y", "%b, %Y", "%Y %b", "%Y-%b"),
)
# Those that a column is tried for.
FORMATS: Final = (ISO, *(date + time for date, time in product(_DATES, _TIMES)), *MONTHS)
_START = datetime(1970, 1, 1, tzinfo=UTC)
# Groups of digits alone, and what each is where it is not there.
NUMBERS: Final = {
    **dict.fromkeys(("year", "short", "month", "hour", "twelve", "minute", "second"), 0),
    "day": 1,
}
_DIRECTIVE = re.compile("%.?")


@lru_cache(maxsize=64)
def pattern(form: str) -> str:
    """The regular expression of a format. Raises ValueError for one that can't be read.

    It is one to Python and to polars alike. Each directive stands once at most.
    """
    if form == ISO:
        return f"^{_ISO}$"
    if form in UNIX:
        return rf"^(?P<{UNIX[form][1]}>-?[0-9]{{1,15}}(?:\.[0-9]{{1,9}})?)$"
    parts, used = [], _DIRECTIVE.findall(form)
    if unknown := [each for each in used if each not in DIRECTIVES]:
        raise ValueError(f"'{unknown[0]}' is none of {' '.join([*DIRECTIVES, *UNIX])}")
    year, month = {"%Y", "%y"} & set(used), {"%m", "%b", "%B"} & set(used)
    if len(year) != 1 or len(month) != 1 or len(set(used)) < len(used):
        raise ValueError("a format has one year (%Y, %y), one month (%m, %b), nothing twice")
    if ("%I" in used) != ("%p" in used) or {"%I", "%H"} <= set(used):
        raise ValueError("%I goes with %p, and not with %H")
    start = 0
    for found in _DIRECTIVE.finditer(form):
        parts += [re.escape(form[start : found.start()]), DIRECTIVES[found[0]]]
        start = found.end()
    return "^" + "".join([*parts, re.escape(form[start:])]) + "$"


def name_format(form: str | None, zone: str | None) -> str:
    """Name the values that a column takes; None: ISO 8601, with an offset if there is a zone."""
    if form in UNIX:
        return f"{UNIX[form][1]} since 1970"
    if form is not None:
        return f"a date as '{form}'"
    offset = " with an offset from UTC" if zone is not None else ""
    return f"a date as 2024-01-31, or a time as 2024-01-31T12:00{offset}"


def seconds_of(
    parts: Mapping[str, Sequence[str | None] | Ints], num: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Seconds since 1970 in UTC (num,), NaN where the parts are no time; and where an offset was.

    `parts` are the groups of a format's pattern by name, None for what is not there; those of
    NUMBERS may be numbers already.
    """
    for per_second, name in UNIX.values():
        if name in parts:
            counts = [math.nan if text is None else float(text) for text in parts[name]]
            found = np.array(counts, np.float64) / per_second
            valid = (found >= FIRST) & (found < LAST)
            return np.where(valid, found, np.nan), np.zeros(num, np.bool_)

    def number(name: str, default: int) -> Ints:
        values = parts.get(name)
        if values is None:
            return np.full(num, default, np.int64)
        if isinstance(values, np.ndarray):
            return values
        return np.array([default if value is None else int(value) for value in values], np.int64)

    year, month, day = number("year", 0), number("month", 0), number("day", 1)
    if "short" in parts:
        short = number("short", 0)
        year = short + np.where(short < 69, 2000, 1900)
    if "name" in parts:
        month = np.array([_month(name) for name in parts["name"]], np.int64)
    hour = number("hour", 0)
    valid = np.ones(num, np.bool_)
    if "twelve" in parts:
        twelve = number("twelve", 0)
        valid &= (twelve >= 1) & (twelve <= 12)
        later = np.array([half is not None and half[0] in "Pp" for half in parts["half"]], np.int64)
        hour = twelve % 12 + 12 * later
    minute, second = number("minute", 0), number("second", 0)
    fractions = parts.get("fraction", ())
    micro = np.array([0 if t is None else int(t[:6].ljust(6, "0")) for t in fractions], np.int64)
    offsets = [_offset(text) for text in parts.get("offset", ())]
    offset = np.array([0 if each is None else each for each in offsets], np.int64)
    micro, offset = (each if len(each) else np.zeros(num, np.int64) for each in (micro, offset))
    valid &= (year >= 1) & (month >= 1) & (month <= 12) & (day >= 1)
    valid &= (hour < 24) & (minute < 60) & (second < 60) & (np.abs(offset) < 86_400)
    days = _days(year, month)
    valid &= day <= _days(year + month // 12, month % 12 + 1) - days
    whole = (days + day - 1) * 86_400 + hour * 3600 + minute * 60 + second - offset
    found = (whole * 1_000_000 + micro) / 1_000_000
    aware = np.array([each is not None for each in offsets], np.bool_)
    return np.where(valid, found, np.nan), aware if len(aware) else np.zeros(num, np.bool_)


def read_text(text: str, form: str) -> tuple[float, bool]:
    """A text's seconds since 1970, NaN where it is no time of the format; and whether it has an
    offset.
    """
    found = re.fullmatch(pattern(form), text)
    if found is None:
        return float("nan"), False
    seconds, aware = seconds_of({name: [part] for name, part in found.groupdict().items()}, 1)
    return float(seconds[0]), bool(aware[0])


def write_text(seconds: float, form: str, *, aware: bool) -> str:
    """A time as a text of the format, to the second; midnight as a date alone."""
    if form in UNIX:
        return str(round(seconds) * UNIX[form][0])
    time = _START + timedelta(seconds=round(seconds))
    if form == ISO:
        text = time.replace(tzinfo=None).isoformat()
        return f"{text}Z" if aware else text.removesuffix("T00:00:00")
    return time.strftime(form)


def _days(year: Ints, month: Ints) -> Ints:
    """The days from 1970-01-01 to the first of a month (Howard Hinnant, 'chrono-compatible
    low-level date algorithms').
    """
    year = year - (month <= 2)
    era, of_era = np.divmod(year, 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5
    of_era = of_era * 365 + of_era // 4 - of_era // 100
    return np.asarray(era * 146_097 + of_era + of_year - 719_468)


def _month(name: str | None) -> int:
    """1 to 12 of a name in English, in full or its first three letters; 0 of another."""
    text = (name or "").lower()
    text = "sep" if text == "sept" else text
    return next((n for n, full in enumerate(_MONTHS, start=1) if text in (full, full[:3])), 0)


def _offset(text: str | None) -> int | None:
    """The seconds that an offset is east of UTC; None where there is none."""
    if text is None:
        return None
    if text in "Zz":
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -60 * minutes if text[0] == "-" else 60 * minutes


def find_cycles(parts: Iterable[Floats], form: str | None = None) -> tuple[list[Cycle], bool]:
    """The cycles that times span, and are not all at the same place of; and if there are gaps.

    Times whose format has no day, months, have a place in the year alone; None: ISO 8601.
    """
    first = low = high = math.nan
    apart, has_gaps = dict.fromkeys(PERIODS, 0.0), False
    for part in parts:
        seconds = part[~np.isnan(part)]
        has_gaps |= len(seconds) < len(part)
        if not len(seconds):
            continue
        first = float(seconds[0]) if math.isnan(first) else first
        low, high = np.fmin(low, seconds.min()), np.fmax(high, seconds.max())
        for name, period in PERIODS.items():
            turns = seconds / period
            away = np.abs((turns - first / period + 0.5) % 1.0 - 0.5)
            apart[name] = max(apart[name], float(away.max()))
    cycles = [
        name
        for name, period in PERIODS.items()
        if (name == "year" or _has_day(form))
        and high / period - low / period >= 1
        and apart[name] > SAME_PLACE
    ]
    return cycles, has_gaps


def _has_day(form: str | None) -> bool:
    return form in (None, ISO, *UNIX) or "%d" in str(form)
