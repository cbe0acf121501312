"""The fields of a CSV file as values: row by row, so that no row changes what another one says.

A table that is read whole has its types from all of its rows. Here they are known from the
training: a text is a number where the model takes numbers, and the name of a category where it
takes categories.
"""

import polars as pl

from stages.common.encode import as_category
from stages.common.schema import Feature, Schema
from stages.common.tables import NULLS


def read_texts(table: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """`table`, all texts, without blanks around them and gaps as nulls, ready to be encoded."""
    trimmed = pl.all().str.strip_chars()
    table = table.select(pl.when(~trimmed.is_in(NULLS)).then(trimmed))
    columns = [] if schema.key is None else [_key(table[schema.key])]
    for feature in schema.features:
        if feature.kind == "categorical":
            columns.append(_named(table[feature.name], feature))
    return table.with_columns(columns)


def _key(texts: pl.Series) -> pl.Series:
    """Whole numbers where all of them are written as such: `7`, not `007`."""
    numbers = texts.cast(pl.Int64, strict=False)
    same = numbers.cast(pl.String).eq_missing(texts).all()
    return numbers if same and numbers.null_count() < texts.len() else texts


def _named(texts: pl.Series, feature: Feature) -> pl.Series:
    """Each text as training calls it: a number is `1` however it is written, a truth `true`.

    But `007` is not 7, and a whole number keeps all of its digits.
    """
    known = feature.categories or []
    others = texts.filter(~texts.is_in(known)).unique().drop_nulls()
    whole = others.cast(pl.Int128, strict=False).cast(pl.String)
    numbers = whole.fill_null(as_category(others.cast(pl.Float64, strict=False)))
    numbers = numbers.set(others.str.contains(r"^[+-]?0\d"), None)
    found: dict[str, str] = {}
    for text, number in zip(others, numbers, strict=True):
        for name in (number, text.lower() if text.lower() in ("true", "false") else None):
            if name in known:
                found[text] = name
    return texts.replace(found)
