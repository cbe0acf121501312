"""What a person should know of new rows that could be predicted all the same."""

import polars as pl

from stages.common.encode import as_category, as_numeric
from stages.common.schema import Schema


def notes_on(table: pl.DataFrame, schema: Schema) -> list[str]:
    """A line for each column with gaps or categories that the train split did not have."""
    notes = []
    for feature in schema.features:
        column = table[feature.name]
        if feature.kind == "numeric" and not feature.missing:
            gaps = as_numeric(column, "infer.input").null_count()
            if gaps:
                notes.append(f"'{feature.name}' is empty in {gaps} rows: taken as the train mean")
        if feature.kind == "categorical":
            texts = as_category(column).drop_nulls()
            new = texts.filter(~texts.is_in(feature.categories or [])).unique().sort()
            if new.len():
                shown = ", ".join(repr(text) for text in new.head(5))
                notes.append(f"'{feature.name}' has {new.len()} values unseen in training: {shown}")
    return notes
