"""Columns as people write them: words for gaps, and numbers with a decimal comma or thousands.

Prepare decides both for a column over all of its rows, and `schema.json` keeps them, so that new
rows are read alike. A value that has a type already is no text: the number 1.5 is 1.5.
"""

import re
from collections import Counter

import polars as pl

from stages.features.schema import Feature, Schema
from stages.features.spelling import (
    DIVIDED_BY_ZERO,
    THOUSANDS,
    number_pattern,
    unit_pattern,
    word_numbers,
)

Gaps = Counter[tuple[str, str]]
TEXTS = (pl.String, pl.Categorical, pl.Enum)


def are_numbers(texts: pl.Series, feature: Feature) -> pl.Series:
    """Check which texts are numbers or gaps, as the numbers of `feature` are written."""
    if feature.decimal is None:
        values = texts.cast(pl.Float64, strict=False)
    else:
        values = read_numbers(texts, feature.decimal, feature.thousands, feature.unit)
    return values.is_not_null() | texts.is_null()


def drop_unit(texts: pl.Series, unit: str) -> pl.Series:
    """The texts without the unit that stands before or behind each; null where none does."""
    pattern = unit_pattern(unit)
    bare = texts.str.replace(pattern, "${1}${2}${3}")
    return bare.set(~texts.str.contains(pattern), None)


def read_numbers(
    texts: pl.Series, decimal: str, thousands: str | None, unit: str | None = None
) -> pl.Series:
    """The numbers that the texts are in a way of writing, float64; null where one is none."""
    if unit is not None:
        texts = drop_unit(texts, unit)
    fits = texts.str.contains(number_pattern(decimal, thousands))
    # Words without digits: inf, nan.
    is_word = texts.str.contains(r"^[+-]?[a-zA-Z]+$")
    bare = texts
    if thousands is not None:
        bare = bare.str.replace_all(f"[{THOUSANDS[thousands]}]", "")
    bare = bare.str.replace_all(re.escape(decimal), ".")
    return bare.set(~(fits | is_word), None).cast(pl.Float64, strict=False)


def drop_words(
    column: pl.Series, words: list[str], gaps: Gaps | None = None, *, numbers: bool
) -> pl.Series:
    """`column` without the words for gaps, which `gaps` counts; `numbers`: it is one of numbers.

    Among numbers a word is compared by its value: -999.0 is -999.
    """
    if column.dtype in TEXTS:
        texts = column.cast(pl.String)
        named = [*words, DIVIDED_BY_ZERO] if numbers else words
        is_gap = texts.str.strip_chars().is_in(named)
    elif column.dtype.is_numeric() and (values := word_numbers(words)):
        texts = column
        is_gap = column.cast(pl.Float64).is_in(values)
    else:
        return column
    if not is_gap.any():
        return column
    if gaps is not None:
        for word, count in texts.filter(is_gap).value_counts().rows():
            gaps[column.name, str(word).strip()] += count
    return texts.set(is_gap, None)


def drop_feature_words(feature: Feature, column: pl.Series, gaps: Gaps | None = None) -> pl.Series:
    """A column of new rows without the feature's words for gaps."""
    numbers = feature.kind == "numeric"
    if not feature.missing_words and not numbers:
        return column
    return drop_words(column, feature.missing_words or [], gaps, numbers=numbers)


def drop_all_words(table: pl.DataFrame, schema: Schema, gaps: Gaps | None = None) -> pl.DataFrame:
    """The columns of a table, which has those of `schema`, without their words for gaps."""
    return table.with_columns(
        drop_feature_words(feature, table[feature.name], gaps)
        for feature in schema.features
        if feature.missing_words or feature.kind == "numeric"
    )
