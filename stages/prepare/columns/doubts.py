"""Columns of texts that look like something else: numbers, dates, names of the rows.

Each different text is a category of its own, which of measurements or of names teaches nothing.
Where a few values make the texts of a column of numbers, they decide what the column is, and
prepare stops; the rest is said on the screen. What `prepare.columns` names is meant so.
"""

from collections.abc import Container, Iterator
from typing import cast

import numpy as np
import polars as pl

from stages.common.errors import Problem, UserError, shorten
from stages.features.numbers import Rows
from stages.features.schema import CODES, Feature, Schema
from stages.features.spelling import BLANKS, LEADING_ZERO, as_line, as_list, as_text, number_pattern
from stages.features.times import UNIX
from stages.prepare.columns.units import find_unit

TEXTS = (pl.String, pl.Categorical, pl.Enum)
# Of the values: as many may be strays; what is said of the whole begins at the half.
MAX_STRAYS = 0.05
MAJORITY = 0.5
# With more different values than these beside it, a word is no category among categories.
MAX_CODES = 20
MAX_EXAMPLES = 3

_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
# `1,5`, `1,234.5`, `$3`, `12 %`, `(5)`: numbers as people write them.
_WRITTEN = r"^\(?[+-]?[$€£¥]?\s?[+-]?\d[\d.,'\s]*(?:[eE][+-]?\d+)?\s?[%$€£¥]?\)?$"
_TIME = r"(?:[T ]+\d{1,2}:\d{2}.*)?$"
_DATE = "|".join(
    [
        r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}" + _TIME,
        r"^\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})" + _TIME,
        r"^\d{1,2}[ -][A-Za-z]{3,9}\.?[ -]\d{2,4}" + _TIME,
        r"^[A-Za-z]{3,9}\.? \d{1,2},? \d{4}" + _TIME,
        r"^\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?$",
    ]
)
_TRUTH = r"^(?i:true|false)$"
_ANY_NUMBER = "|".join(number_pattern(*signs) for signs in (".,", ",.", ". ", ", ", ".'"))
# What tables say for 'no value', in small letters: among categories, and also among numbers.
_LIKELY_GAPS = (
    *("na", "n/a", "n.a.", "nan", "null", "-", "--", "—", "?"),
    *("#n/a", "#na", "#null!", "#div/0!", "#value!", "#ref!", "#name?", "#num!"),
)
GAPS = (*_LIKELY_GAPS, "none", "nil", "missing", "unknown", "undefined", "void", ".")
# Numbers that stand for 'no value' where they lie far from all others.
SENTINELS = (-99, -999, -9999, -99999, 9999, 99999, 999999)
_NO_TEXTS = pl.DataFrame(schema={"row": pl.Int64, "text": pl.String})


def stop_at_strays(column: pl.Series, rows: Rows | None = None) -> None:
    """Raise UserError where a few of the values make the texts of a column of numbers or truths.

    `rows` (rows,) are the numbers that the values have in their table; None: from 0.
    """
    texts = _texts(column, rows)
    strays, what = _find_strays(texts)
    if strays.height:
        raise UserError(_stray(column.name, texts, strays, what))


def stray_gaps(column: pl.Series) -> list[str]:
    """The words among a column's numbers or truths, where each is one that tables use for gaps."""
    texts = _texts(column) if column.dtype in TEXTS else _NO_TEXTS
    for pattern in (_ANY_NUMBER, _TRUTH):
        strays = texts.filter(~_like(texts, pattern))
        words = strays["text"].unique(maintain_order=True)
        if 0 < strays.height < MAJORITY * texts.height and _are_gaps(words):
            return words.to_list()
    return []


def _are_gaps(words: pl.Series) -> bool:
    return bool(words.str.to_lowercase().is_in(GAPS).all())


def _find_strays(texts: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The few texts that are none of what the others are, and what these are."""
    for pattern, what in ((_NUMBER, "numbers"), (_TRUTH, "truths")):
        fits = _like(texts, pattern) & ~_like(texts, LEADING_ZERO)
        good, strays = texts.filter(fits), texts.filter(~fits)
        if not strays.height or good.height <= MAJORITY * texts.height:
            continue
        few = strays.height <= max(1, MAX_STRAYS * texts.height)
        if few or (strays["text"].n_unique() == 1 and good["text"].n_unique() > MAX_CODES):
            return strays, what
    return _NO_TEXTS, ""


def _stray(name: str, texts: pl.DataFrame, strays: pl.DataFrame, what: str) -> Problem:
    number = f"{strays.height} values are" if strays.height > 1 else "1 value is"
    message = (
        f"the column '{name}' holds {texts.height - strays.height} {what}, and {number} none: "
        f"{_examples(strays)}\n  {_remedy(name, strays)}; or, if each of its "
        f"{texts['text'].n_unique()} different texts is a category, say so: "
        f"{as_line(name, 'categorical')}"
    )
    key = f"prepare.columns.{name}"
    return Problem(message, key=key, allowed=("categorical", "exclude"))


def _remedy(name: str, strays: pl.DataFrame) -> str:
    words = strays["text"].unique(maintain_order=True)
    if _are_gaps(words):
        line = as_line(name, f"{{missing: {as_list(words.to_list())}}}")
        return f"where that stands for no value, say so: {line}"
    if (_like(strays, LEADING_ZERO) & _like(strays, _NUMBER)).all():
        return "write the numbers without leading zeros in the file"
    if _like(strays, _WRITTEN).all():
        return "write numbers as 1234.5 in the file"
    return "correct the file"


def find_doubts(
    table: pl.DataFrame, schema: Schema, said: Container[str], rows: Rows | None = None
) -> Iterator[str]:
    """A line for each column that is probably not what it is taken for; `said` are those named.

    `rows` (rows,) are the numbers of the rows in their table; None: from 0.
    """
    for feature in schema.features:
        column = table[feature.name]
        if feature.name in said:
            continue
        yield from _of_gaps(column, feature)
        if feature.kind == "numeric" and column.dtype.is_numeric():
            yield from _of_unix(column)
        if not feature.name.strip():
            line = as_line(feature.name, "exclude")
            yield f"the column without a name is learned from; if it is none of yours, {line}"
        if feature.kind in CODES and column.dtype in TEXTS:
            yield from _of_texts(column, rows)
        elif column.dtype.is_integer() and _counts_rows(column, rows):
            yield (
                f"'{feature.name}' numbers the rows ({column[0]}, {column[1]}, {column[2]}, …): a "
                "model learns the order of the file from it; name it in prepare.key, or leave it "
                f"out: {as_line(feature.name, 'exclude')}"
            )
    for name in filter(None, (schema.key, schema.target.name)):
        if table[name].dtype in TEXTS:
            yield from _of_zeros(_texts(table[name], rows), name)


def _of_gaps(column: pl.Series, feature: Feature) -> Iterator[str]:
    """Yield what may stand for 'no value' in a column, and isn't said to."""
    counts: list[tuple[object, int]] = []
    if feature.missing_words is None and feature.kind in CODES and column.dtype in TEXTS:
        texts = _texts(column)["text"]
        found = texts.filter(texts.str.to_lowercase().is_in(_LIKELY_GAPS)).value_counts(sort=True)
        counts += found.sort("count", "text", descending=[True, False]).rows()
    elif feature.missing_words is None and column.dtype.is_numeric():
        counts += _sentinels(column)
    if counts:
        shown = ", ".join(f"{count} {word!r}" for word, count in counts)
        what = "categories" if feature.kind in CODES else "numbers"
        line = as_line(column.name, f"{{missing: {as_list([word for word, _ in counts])}}}")
        yield f"'{column.name}' holds {shown}, taken as {what}; if that is no value, {line}"


def _of_unix(column: pl.Series) -> Iterator[str]:
    """Yield a line on numbers that are all seconds since 1970, of 2001 to 2033, or milliseconds."""
    numbers = column.cast(pl.Float64).fill_nan(None).drop_nulls()
    counts = {
        form: int(numbers.is_between(1e9 * per_second, 2e9 * per_second).sum())
        for form, (per_second, _) in UNIX.items()
    }
    if numbers.is_empty() or sum(counts.values()) < numbers.len():
        return
    form = max(counts, key=lambda each: counts[each])
    line = as_line(column.name, f"{{kind: datetime, format: {form}}}")
    meant = f"if numbers are meant, {as_line(column.name, 'numeric')}"
    if all(counts.values()):
        shown = " and ".join(f"{counts[form]} {name}" for form, (_, name) in UNIX.items())
        yield (
            f"'{column.name}' seems to hold {shown} since 1970, taken as numbers alike: write all "
            f"of them as {UNIX[form][1]} in the file, and {line}; {meant}"
        )
    else:
        yield (
            f"'{column.name}' seems to hold {UNIX[form][1]} since 1970, taken as numbers; if they "
            f"are dates, {line}; {meant}"
        )


def _sentinels(column: pl.Series) -> list[tuple[object, int]]:
    """Numbers such as -999 that stand alone: below all others, which have no sign, or far above."""
    numbers = column.cast(pl.Float64).fill_nan(None).drop_nulls()
    found: list[tuple[object, int]] = []
    for word in SENTINELS:
        others = numbers.filter(numbers != word)
        count = numbers.len() - others.len()
        if count < 2 or others.is_empty():
            continue
        low, high = cast(float, others.min()), cast(float, others.max())
        if (word < 0 <= low) or (word > 0 and high < word / 10):
            found.append((word, count))
    return found


def _of_texts(column: pl.Series, rows: Rows | None) -> Iterator[str]:
    """Yield what is to be said of a column of categories."""
    texts = _texts(column, rows)
    most = MAJORITY * texts.height
    num_different = texts["text"].n_unique()
    categories = f"{num_different} categories"
    meant = f"if that is meant, {as_line(column.name, 'categorical')}"
    left_out = f"or {as_line(column.name, 'exclude')}"
    zeros, dates = _like(texts, LEADING_ZERO), _like(texts, _DATE)
    plain = _like(texts, _NUMBER) & ~zeros
    numbers = (plain | _like(texts, _WRITTEN)) & ~dates & ~zeros
    if dates.sum() > most:
        yield (
            f"'{column.name}' holds dates, taken as {categories}: {_examples(texts.filter(dates))}"
            f"{_others(texts.filter(~dates))}; put what matters of them into columns of numbers, "
            f"{left_out}; {meant}"
        )
    elif unit := find_unit(texts["text"]):
        line = as_line(column.name, f"{{kind: numeric, unit: {as_text(unit)}}}")
        yield (
            f"'{column.name}' holds numbers with the unit '{unit}', taken as {categories}: "
            f"{_examples(texts)}; if they measure something, {line}, {left_out}; {meant}"
        )
    elif numbers.sum() > most:
        # Those first that can't be read as they stand.
        written = numbers & ~plain
        first = _examples(texts.filter(written if written.any() else plain))
        remedy = f"write them as 1234.5 in the file, {left_out}"
        if plain.all():
            remedy = f"if they measure something, {as_line(column.name, 'numeric')}"
        yield (
            f"'{column.name}' holds numbers as texts, taken as {categories}: {first}"
            f"{_others(texts.filter(~numbers))}; {remedy}; {meant}"
        )
    elif num_different > max(MAX_CODES, most):
        yield (
            f"'{column.name}' has {num_different} different texts in {texts.height} rows: "
            f"{_examples(texts)}; such categories say little of new rows: if they name the row, "
            f"{as_line(column.name, 'exclude')}; {meant}"
        )
    yield from _of_zeros(texts, column.name)


def _of_zeros(texts: pl.DataFrame, name: str) -> Iterator[str]:
    numbers = texts.filter(_like(texts, _NUMBER))
    zeros = numbers.filter(_like(numbers, LEADING_ZERO))
    if zeros.height and numbers.height > MAJORITY * texts.height:
        yield f"'{name}' is kept as text, for its leading zeros: {_examples(zeros)}"


def _counts_rows(column: pl.Series, rows: Rows | None) -> bool:
    """Check whether the values go up by one from row to row, as no measurement does.

    `rows` (rows,) are the numbers of the rows in their table; None: from 0.
    """
    if column.len() <= MAX_CODES or column.null_count():
        return False
    numbers = np.arange(column.len()) if rows is None else rows
    ahead = column.cast(pl.Int128) - pl.Series(numbers, dtype=pl.Int128)
    return ahead.n_unique() == 1


def _texts(column: pl.Series, rows: Rows | None = None) -> pl.DataFrame:
    """The values that are there as `text`, without blanks around them; and the `row` of each."""
    texts = column.cast(pl.String).str.strip_chars(BLANKS)
    numbers = np.arange(column.len()) if rows is None else rows
    return pl.DataFrame({"row": numbers, "text": texts}).filter(pl.col("text") != "")


def _like(texts: pl.DataFrame, pattern: str) -> pl.Series:
    return texts["text"].str.contains(pattern)


def _others(others: pl.DataFrame) -> str:
    return f", and {others.height} others: {_examples(others)}" if others.height else ""


def _examples(texts: pl.DataFrame) -> str:
    """The first different ones, each with the first row (from 0) that holds it."""
    first = texts.unique("text", keep="first", maintain_order=True).head(MAX_EXAMPLES)
    return ", ".join(f"{shorten(repr(text))} (row {row})" for row, text in first.iter_rows())
