"""Texts by their looks: numbers, dates, words for gaps; and how they are shown to people."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from stages.common.errors import shorten
from stages.features.numbers import Rows
from stages.features.spelling import BLANKS, LEADING_ZERO, as_line, as_list, as_text, number_pattern

TEXTS = (pl.String, pl.Categorical, pl.Enum)
# Of the values: as many may be strays; what is said of the whole begins at the half.
MAX_STRAYS = 0.05
MAJORITY = 0.5
# With more different values than these beside it, a word is no category among categories.
MAX_CODES = 20
MAX_EXAMPLES = 3

NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
# `1,5`, `1,234.5`, `$3`, `12 %`, `(5)`: numbers as people write them.
WRITTEN = r"^\(?[+-]?[$€£¥]?\s?[+-]?\d[\d.,'\s]*(?:[eE][+-]?\d+)?\s?[%$€£¥]?\)?$"
_TIME = r"(?:[T ]+\d{1,2}:\d{2}.*)?$"
DATE = "|".join(
    [
        r"^\d{4}[-/.]\d{1,2}[-/.]\d{1,2}" + _TIME,
        r"^\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d{2})" + _TIME,
        r"^\d{1,2}[ -][A-Za-z]{3,9}\.?[ -]\d{2,4}" + _TIME,
        r"^[A-Za-z]{3,9}\.? \d{1,2},? \d{4}" + _TIME,
    ]
)
TRUTH = r"^(?i:true|false)$"
ANY_NUMBER = "|".join(number_pattern(*signs) for signs in (".,", ",.", ". ", ", ", ".'"))
# What tables say for 'no value', in small letters: among categories, and also among numbers.
LIKELY_GAPS = (
    *("na", "n/a", "n.a.", "nan", "null", "-", "--", "—", "?"),
    *("#n/a", "#na", "#null!", "#div/0!", "#value!", "#ref!", "#name?", "#num!"),
)
GAPS = (*LIKELY_GAPS, "none", "nil", "missing", "unknown", "undefined", "void", ".", "nat")
# Numbers that stand for 'no value' where they lie far from all others.
SENTINELS = (-99, -999, -9999, -99999, 9999, 99999, 999999)
NO_TEXTS = pl.DataFrame(schema={"row": pl.Int64, "text": pl.String})


def are_gaps(words: pl.Series) -> bool:
    """Check whether all are words that tables use for 'no value'."""
    return bool(words.str.to_lowercase().is_in(GAPS).all())


def has_target(column: pl.Series) -> pl.Series:
    """Check which rows have a target: no gap, nor a number that is infinite or none."""
    if not column.dtype.is_float():
        return column.is_not_null()
    return column.is_finite().fill_null(value=False)


def say_line(
    name: str,
    words: Sequence[object],
    kind: str = "",
    unit: str | None = None,
    form: str | None = None,
) -> str:
    """The line that says the kind, the unit or the format, and the words for gaps of a column."""
    parts = [f"kind: {kind}"] if kind else []
    parts += [] if unit is None else [f"unit: {as_text(unit)}"]
    parts += [] if form is None else [f"format: {as_text(form)}"]
    parts += [f"missing: {as_list(words)}"] if words else []
    return as_line(name, kind if len(parts) == 1 and kind else f"{{{', '.join(parts)}}}")


def texts_of(column: pl.Series, rows: Rows | None = None) -> pl.DataFrame:
    """The values that are there as `text`, without blanks around them; and the `row` of each."""
    texts = column.cast(pl.String).str.strip_chars(BLANKS)
    numbers = np.arange(column.len()) if rows is None else rows
    return pl.DataFrame({"row": numbers, "text": texts}).filter(pl.col("text") != "")


def like(texts: pl.DataFrame, pattern: str) -> pl.Series:
    """Check which of the texts a pattern fits."""
    return texts["text"].str.contains(pattern)


def are_codes(texts: pl.DataFrame) -> bool:
    """Check whether all are letters and digits of one length, as zip codes are."""
    is_one = texts["text"].str.len_chars().n_unique() == 1
    return is_one and bool(like(texts, r"^[0-9A-Za-z]+$").all())


def find_zeros(texts: pl.DataFrame) -> pl.DataFrame:
    """The numbers with leading zeros, of a column of numbers; of codes those with letters, too."""
    is_number = like(texts, NUMBER)
    if is_number.sum() <= MAJORITY * texts.height:
        return NO_TEXTS
    numbers = texts if are_codes(texts) else texts.filter(is_number)
    return numbers.filter(like(numbers, LEADING_ZERO))


def show_examples(texts: pl.DataFrame, num: int = MAX_EXAMPLES) -> str:
    """The first different ones, each with the first row (from 0) that holds it."""
    first = texts.unique("text", keep="first", maintain_order=True).head(num)
    return ", ".join(f"{shorten(repr(text))} (row {row})" for row, text in first.iter_rows())
