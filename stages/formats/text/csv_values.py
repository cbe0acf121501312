"""The fields of a CSV file as values: row by row, so that no row changes what another one says.

A table that is read whole has its types from all of its rows. Here they are known from the
training: a text is a number where the model takes numbers, and the name of a category where it
takes categories. The values of JSON lines are read as texts too.
"""

import polars as pl

from stages.features.columns import as_category
from stages.features.schema import Feature, Schema
from stages.features.spelling import LEADING_ZERO

# From it on, a float64 stands for more than one whole number.
FIRST_INEXACT = 2**53
_TRUTHS = {"true": "1", "false": "0"}


def read_texts(table: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """`table`, of texts as `plain` gives them, numbers and images, ready to be encoded.

    A column of numbers with a text among them that is none stays texts.
    """
    columns = [] if schema.key is None else [_key(table[schema.key])]
    for feature in schema.features:
        column = table[feature.name]
        if feature.kind == "numeric" and column.dtype == pl.String:
            columns.append(_numbers(column))
        if feature.kind == "categorical":
            columns.append(_named(column, feature))
    return table.with_columns(columns)


def _numbers(texts: pl.Series) -> pl.Series:
    values = texts.cast(pl.Float64, strict=False)
    if values.null_count() == texts.null_count():
        return values
    # Training takes a column of truths for numbers where it is told so.
    return texts.replace(_TRUTHS)


def _key(texts: pl.Series) -> pl.Series:
    """Whole numbers where all of them are written as such: `7`, not `007`."""
    numbers = texts.cast(pl.Int64, strict=False)
    same = numbers.cast(pl.String).eq_missing(texts).all()
    return numbers if same and numbers.null_count() < texts.len() else texts


def _named(texts: pl.Series, feature: Feature) -> pl.Series:
    """Each text as training calls it: a number is `1` however it is written, a truth `true`.

    Not so `007`, which is another name than 7; and whole numbers keep all of their digits.
    """
    known = feature.categories or []
    others = texts.filter(~texts.is_in(known)).unique().drop_nulls()
    whole = others.cast(pl.Int128, strict=False).cast(pl.String)
    numbers = others.cast(pl.Float64, strict=False)
    exact = as_category(numbers.set(numbers.abs() >= FIRST_INEXACT, None))
    names = whole.fill_null(exact).set(others.str.contains(LEADING_ZERO), None)
    found: dict[str, str] = {}
    for text, number in zip(others, names, strict=True):
        for name in (number, text.lower() if text.lower() in ("true", "false") else None):
            if name in known:
                found[text] = name
    return texts.replace(found)
