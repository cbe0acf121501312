"""The fields of a CSV file as values: row by row, so that no row changes what another one says.

A table that is read whole has its types from all of its rows. Here they are known from the
training: a text is a number where the model takes numbers, and the name of a category where it
takes categories. The values of JSON lines are read as texts too.
"""

import polars as pl

from stages.features.kind import kind_of
from stages.features.schema import Schema
from stages.features.written import drop_feature_words
from stages.formats.reading import Noticed


def read_texts(table: pl.DataFrame, schema: Schema, noticed: Noticed) -> pl.DataFrame:
    """`table`, of texts as `plain` gives them, numbers and images, ready to be encoded.

    A column of numbers with a text among them that is none stays texts. Words for gaps become
    nulls, which `noticed` counts.
    """
    columns = [] if schema.key is None else [_key(table[schema.key])]
    for feature in schema.features:
        texts = drop_feature_words(feature, table[feature.name], noticed.gaps)
        columns.append(kind_of(feature.kind).from_text(feature, texts))
    return table.with_columns(columns)


def _key(texts: pl.Series) -> pl.Series:
    """Whole numbers where all of them are written as such: `7`, not `007`."""
    numbers = texts.cast(pl.Int64, strict=False)
    same = numbers.cast(pl.String).eq_missing(texts).all()
    return numbers if same and numbers.null_count() < texts.len() else texts
