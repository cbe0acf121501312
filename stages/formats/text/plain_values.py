"""Texts of a table as every reader gives them: no blanks around them, words for 'no value' gone."""

import polars as pl

from stages.features.spelling import LEADING_ZERO
from stages.formats.reading import Noticed

# Texts that public tables use for 'no value'.
NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "?"]
TRUTHS = {"true": True, "false": False}
# A column that begins otherwise is not tried as a kind: most are told apart by so many rows.
HEAD_ROWS = 100


def plain(table: pl.DataFrame, noticed: Noticed) -> pl.DataFrame:
    """`table` with plain texts, whatever kind of file it comes from; `noticed` counts the gaps."""
    names = [name for name, dtype in table.schema.items() if _is_text(dtype)]
    texts = table.select(pl.col(names).cast(pl.String))
    trimmed = pl.all().str.strip_chars()
    texts = texts.select(pl.when(~trimmed.is_in(NULLS)).then(trimmed))
    for column in texts.iter_columns():
        _count_words(table[column.name], column, noticed)
    return table.with_columns(texts)


def typed(table: pl.DataFrame) -> pl.DataFrame:
    """The texts of a whole file as what all of a column are: truths, whole numbers, numbers.

    Whole numbers keep every digit. A column with a zero before other digits, as `007`, stays text:
    that is a name, and not the number 7.
    """
    return table.with_columns(_typed(column) for column in table.iter_columns())


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _count_words(before: pl.Series, after: pl.Series, noticed: Noticed) -> None:
    if after.null_count() == before.null_count():
        return
    lost = before.filter(after.is_null() & before.is_not_null()).cast(pl.String).str.strip_chars()
    for word, count in lost.filter(lost != "").value_counts().rows():
        noticed.gaps[before.name, word] += count


def _typed(column: pl.Series) -> pl.Series:
    texts = column.drop_nulls()
    if texts.is_empty():
        return column
    head = texts.head(HEAD_ROWS)
    if head.str.to_lowercase().is_in(list(TRUTHS)).all():
        return _cast_truths(column)
    if _are_whole(head):
        values = column.cast(pl.Int64, strict=False)
        if values.null_count() > column.null_count() and _are_whole(texts):
            values = column.cast(pl.Int128, strict=False)
            if values.null_count() > column.null_count():
                return column
        if values.null_count() == column.null_count():
            return column if _has_leading_zero(texts) else values
    if head.cast(pl.Float64, strict=False).null_count() == 0:
        values = column.cast(pl.Float64, strict=False)
        if values.null_count() == column.null_count():
            return column if _has_leading_zero(texts) else values
    return column


def _cast_truths(column: pl.Series) -> pl.Series:
    words = column.str.to_lowercase()
    truths = words.replace_strict(TRUTHS, default=None, return_dtype=pl.Boolean)
    return column if truths.null_count() > column.null_count() else truths


def _are_whole(texts: pl.Series) -> bool:
    return bool(texts.str.contains(r"^[+-]?\d+$").all())


def _has_leading_zero(texts: pl.Series) -> bool:
    """Return whether a text begins with a zero before other digits."""
    is_zero = texts.str.starts_with("0") | texts.str.starts_with("-0") | texts.str.starts_with("+0")
    return bool(texts.filter(is_zero).str.contains(LEADING_ZERO).any())
