"""A column of dates and times as seconds since 1970, and the one format that its texts have."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.errors import Problem, UserError
from stages.features.columns import as_category, check_single
from stages.features.spelling import as_line, as_list
from stages.features.times import (
    FORMATS,
    ISO,
    MONTHS,
    NUMBERS,
    UNIX,
    pattern,
    read_text,
    seconds_of,
    write_text,
)

TEXTS = (pl.String, pl.Categorical, pl.Enum)
# Of the values: where more are dates, the others are strays.
MAJORITY = 0.5
HEAD_TEXTS, FIRST_TEXTS = 1000, 20
MAX_EXAMPLES = 3
# Months are of the years 1900 to 2099; another number is a code.
_FIRST_MONTH, _LAST_MONTH = -2_208_988_800.0, 4_102_444_800.0
# In so many years, months that are all 1 or 2 are halves of them.
MIN_YEARS = 3
# Seconds of 2001 to 2065 that are taken for milliseconds lie in January 1970.
EARLY, LATE = (1e6, 3e6), 1e9
# Where the parts of a time are in texts of a width, and the signs between them.
_DATE = {"year": (0, 4), "month": (5, 7), "day": (8, 10)}
_EVEN = {10: _DATE, 19: _DATE | {"hour": (11, 13), "minute": (14, 16), "second": (17, 19)}}
_SIGNS = {4: b"-", 7: b"-", 10: b"Tt ", 13: b":", 16: b":"}


@dataclass(frozen=True)
class Parsed:
    """Seconds since 1970 of texts (rows,), NaN for what is none; `aware`: it has an offset."""

    seconds: npt.NDArray[np.float64]
    aware: npt.NDArray[np.bool_]

    @property
    def fits(self) -> npt.NDArray[np.bool_]:
        """Return which of them are times (rows,)."""
        return ~np.isnan(self.seconds)


def are_dates(column: pl.Series) -> bool:
    """Check whether it is a column of dates, or one of texts of which more than half are some."""
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        return True
    if column.dtype not in TEXTS:
        return False
    texts = as_category(column).drop_nulls().unique(maintain_order=True)
    if texts.is_empty():
        return False
    form, fits = _best(texts.head(HEAD_TEXTS))
    return are_months(texts, form) if form in MONTHS else bool(fits.mean() > MAJORITY)


def fit_dates(texts: pl.Series, told: str | None = None) -> bool:
    """Check whether all texts are dates of one format, or months; `told` is one that is said."""
    different = texts.unique(maintain_order=True)
    if different.is_empty():
        return False
    if told is not None:
        return bool(parse(different, told).fits.all())
    return any(
        are_months(different, form) if form in MONTHS else parse(different, form).fits.all()
        for form in _possible(different)
    )


def are_months(texts: pl.Series, form: str) -> bool:
    """Check whether every text is a month of these centuries in a format.

    Those that all name a year and the next one, as 2010-11 does, are none: they may be seasons. Nor
    are 2010-1 and 2010-2 of several years with no other month: they are halves of years.
    """
    seconds = parse(texts, form).seconds
    if not ((seconds >= _FIRST_MONTH) & (seconds < _LAST_MONTH)).all():
        return False
    halves = texts.str.extract("^([0-9]{4})[-/][12]$")
    if not halves.has_nulls() and halves.n_unique() >= MIN_YEARS:
        return False
    years = texts.str.extract_groups("^[0-9]{2}([0-9]{2})[-/]([0-9]{2})$").struct.unnest()
    first, second = (year.cast(pl.Int64) for year in years)
    return not bool(((first + 1) % 100 == second).fill_null(value=False).all())


def find_format(
    column: pl.Series, told: str | None, words: Sequence[object] = ()
) -> tuple[str, str | None]:
    """The one format of a column, and its zone if it has offsets; `told` is one that is said.

    `words` are those for gaps, which the column no longer has.

    Raises UserError where no format fits all values, or several do, and where some values have an
    offset from UTC and others none.
    """
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        return ISO, _zone(column)
    check_single(column)
    texts = as_category(column)
    there = texts.drop_nulls()
    forms = [told] if told else [f for f in _possible(there) if parse(there, f).fits.all()]
    if len(forms) > 1:
        raise UserError(_several(texts, forms, words))
    form = forms[0] if forms else _best(there)[0]
    parsed = parse(texts, form)
    known = texts.is_not_null().to_numpy()
    if (known & ~parsed.fits).any():
        raise UserError(_strays(texts, form, known & ~parsed.fits))
    if form == ISO and parsed.aware.any() and not parsed.aware[known].all():
        raise UserError(_mixed(texts, parsed.aware, known & ~parsed.aware))
    early = (parsed.seconds >= EARLY[0]) & (parsed.seconds < EARLY[1])
    if form == "unix ms" and early.any() and (parsed.seconds > LATE).any():
        raise UserError(_two_units(texts, early))
    return form, "UTC" if parsed.aware.any() else None


def as_seconds(
    column: pl.Series, form: str | None, must: str, key: str, *, aware: bool
) -> npt.NDArray[np.float64]:
    """Seconds since 1970 in UTC, NaN for a gap; `aware`: training had offsets or a zone.

    Raises UserError for what is no time of the format, with examples.
    """
    if isinstance(column.dtype, pl.Date | pl.Datetime):
        zone = _zone(column)
        if (zone is not None) != aware:
            has, had = ("has no zone", "had one") if aware else ("has a zone", "had none")
            message = f"the column '{column.name}' {has}, and in training it {had}"
            raise UserError(Problem(message, key=key))
        micro = column.cast(pl.Datetime("us", zone)).to_physical()
        return (micro.cast(pl.Float64) / 1_000_000).fill_null(float("nan")).to_numpy()
    check_single(column)
    texts = as_category(column)
    parsed = parse(texts, form or ISO)
    fits = parsed.fits & (parsed.aware == aware)
    lost = texts.filter(pl.Series(~fits) & texts.is_not_null())
    if lost.len():
        examples = ", ".join(repr(text) for text in lost.unique(maintain_order=True).head(5))
        message = f"the column '{column.name}' holds {lost.len()} values that are not {must}"
        raise UserError(Problem(f"{message}: {examples}", key=key))
    return parsed.seconds


def parse(texts: pl.Series, form: str) -> Parsed:
    """Read texts of a format, each different one once."""
    if form == ISO and (seconds := _parse_even(texts)) is not None:
        return Parsed(seconds, np.zeros(len(seconds), np.bool_))
    different = texts.unique()
    groups = different.str.extract_groups(pattern(form)).struct.unnest()
    parts = {
        group.name: group.cast(pl.Int64).fill_null(NUMBERS[group.name]).to_numpy()
        if group.name in NUMBERS
        else group.to_list()
        for group in groups
        if group.null_count() < group.len() or group.name in ("name", "half")
    }
    seconds, aware = seconds_of(parts, different.len())
    found = pl.DataFrame({"text": different, "seconds": seconds, "aware": aware})
    rows = pl.DataFrame({"text": texts})
    joined = rows.join(found, on="text", how="left", nulls_equal=True, maintain_order="left")
    return Parsed(joined["seconds"].to_numpy(), joined["aware"].to_numpy())


def _parse_even(texts: pl.Series) -> npt.NDArray[np.float64] | None:
    """The seconds of texts that are all as `2024-01-31`, or all as `2024-01-31 12:00:00`.

    None where they are not; a gap is NaN. The digits of all rows are read at once.
    """
    there = texts.drop_nulls()
    width = len(there[0]) if there.len() else 0
    if width not in _EVEN or not (there.str.len_bytes() == width).all():
        return None
    text = there.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()[2]
    letters = np.frombuffer(text, np.uint8)[: width * len(there)].reshape(-1, width)
    letters = np.ascontiguousarray(letters.T)
    for place, signs in _SIGNS.items():
        if place < width and not np.isin(letters[place], list(signs)).all():
            return None
    parts = {}
    for name, (start, end) in _EVEN[width].items():
        number = np.zeros(len(there), np.int64)
        for digit in letters[start:end] - ord("0"):
            if digit.max() > 9:
                return None
            number = number * 10 + digit
        parts[name] = number
    found, _ = seconds_of(parts, len(there))
    seconds = np.full(texts.len(), np.nan)
    seconds[texts.is_not_null().to_numpy()] = found
    return seconds


def _zone(column: pl.Series) -> str | None:
    return column.dtype.time_zone if isinstance(column.dtype, pl.Datetime) else None


def _best(texts: pl.Series) -> tuple[str, npt.NDArray[np.bool_]]:
    """The format that most texts have, the first of several, and which of them have it."""
    found = [(form, parse(texts, form).fits) for form in _possible(texts)]
    nothing = ISO, np.zeros(texts.len(), np.bool_)
    return max(found, key=lambda each: int(each[1].sum()), default=nothing)


def _possible(texts: pl.Series) -> list[str]:
    """The formats that one of the first texts has: mostly none at all."""
    head = [text for text in texts.head(FIRST_TEXTS) if re.search("[0-9]", text)]
    return [form for form in FORMATS if any(re.match(pattern(form), t) for t in head)]


def _several(texts: pl.Series, forms: list[str], words: Sequence[object]) -> Problem:
    """The mistake of dates that several formats fit, of which each gives other days."""
    first = str(texts.drop_nulls()[0])
    gaps, lines = f", missing: {as_list(words)}" if words else "", []
    for form in forms:
        seconds, _ = read_text(first, form)
        line = as_line(texts.name, f"{{kind: datetime, format: '{form}'{gaps}}}")
        lines.append(f"{line}  # {first} is {write_text(seconds, ISO, aware=False)}")
    message = (
        f"the dates of the column '{texts.name}' may be read in {len(forms)} ways, each of which "
        f"all {texts.len() - texts.null_count()} values fit; say which it is:\n  "
    )
    return Problem(message + "\n  ".join(lines), f"prepare.columns.{texts.name}")


def _strays(texts: pl.Series, form: str, strays: npt.NDArray[np.bool_]) -> Problem:
    """The mistake of values that have not the format of the others."""
    num = texts.len() - texts.null_count()
    unix = _find_unix(texts)
    other = as_line(texts.name, f"{{kind: datetime, format: '{unix or '%d/%m/%Y'}'}}")
    correct = "correct the file, and where there is no date leave the field empty; or say another"
    if form in UNIX and unix is None:
        correct = "write seconds, or milliseconds, in all rows of the file; or say another"
    are = "value is" if strays.sum() == 1 else "values are"
    message = (
        f"the column '{texts.name}' holds {num - strays.sum()} dates of the format '{form}', and "
        f"{strays.sum()} {are} none: {_examples(texts, strays)}\n  a column has one format: "
        f"{correct}, {other}; or, if each different "
        f"text is a category, {as_line(texts.name, 'categorical')}"
    )
    return Problem(message, f"prepare.columns.{texts.name}", allowed=("categorical", "exclude"))


def _mixed(texts: pl.Series, aware: npt.NDArray[np.bool_], naive: npt.NDArray[np.bool_]) -> Problem:
    """The mistake of times of which some have an offset from UTC and others none."""
    message = (
        f"the column '{texts.name}' holds {aware.sum()} times with an offset from UTC, as "
        f"{_examples(texts, aware)}, and {naive.sum()} without, as {_examples(texts, naive)}: "
        "when these were is not known; give all of them an offset in the file, or none"
    )
    return Problem(message, f"prepare.columns.{texts.name}", allowed=("categorical", "exclude"))


def _two_units(texts: pl.Series, early: npt.NDArray[np.bool_]) -> Problem:
    """The mistake of seconds among milliseconds since 1970."""
    message = (
        f"the column '{texts.name}' holds {early.sum()} values that would be in January 1970, "
        f"and others after 2001: {_examples(texts, early)}\n  these seem to be seconds among "
        "milliseconds: write all of them as milliseconds in the file"
    )
    return Problem(message, f"prepare.columns.{texts.name}", allowed=("numeric", "exclude"))


def _examples(texts: pl.Series, chosen: npt.NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(chosen)[:MAX_EXAMPLES].tolist()
    return ", ".join(f"{texts[row]!r} (row {row})" for row in rows)


def _find_unix(texts: pl.Series) -> str | None:
    """The format of UNIX that makes of all texts days since 1973, if one does."""
    numbers = texts.cast(pl.Float64, strict=False).drop_nulls()
    if numbers.is_empty() or numbers.len() < texts.len() - texts.null_count():
        return None
    fits = (numbers.is_between(1e8 * num, 1e10 * num).all() for num, _ in UNIX.values())
    return next((form for form, does in zip(UNIX, fits, strict=True) if does), None)
