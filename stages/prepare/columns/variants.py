"""Categories and classes that differ in nothing but their case or blanks: one, or several?"""

from collections.abc import Iterator

import polars as pl

from stages.features.columns import as_category
from stages.features.schema import Schema
from stages.features.spelling import as_line
from stages.prepare.columns.looks import TEXTS
from stages.prepare.params import PrepareParams

MAX_SHOWN = 3


def find_variants(table: pl.DataFrame, schema: Schema, params: PrepareParams) -> Iterator[str]:
    """A line for each column with such names, of those whose kind `params` does not say."""
    named = [feature.name for feature in schema.features if feature.kind == "categorical"]
    target = schema.target.name if schema.target.classes is not None else None
    for name in (*named, *filter(None, [target])):
        if params.column(name).named_kind is not None or table[name].dtype not in TEXTS:
            continue
        if groups := _groups(table[name]):
            shown = "; ".join(groups[:MAX_SHOWN])
            more = f"; and {len(groups) - MAX_SHOWN} more" if len(groups) > MAX_SHOWN else ""
            what = "classes" if name == target else "categories"
            yield (
                f"'{name}' has {what} that differ in their case or blanks alone, and each counts "
                f"for itself: {shown}{more}; if they mean the same, write them alike in the file; "
                f"if not, {as_line(name, 'categorical')}"
            )


def _groups(column: pl.Series) -> list[str]:
    """The names that differ in case or blanks alone, with their rows; the most frequent first."""
    counts = as_category(column).drop_nulls().alias("name").value_counts()
    plain = pl.col("name").str.to_lowercase().str.replace_all(r"\s+", " ")
    ordered = counts.sort("count", "name", descending=[True, False])
    groups = (
        ordered.group_by(plain.alias("plain"), maintain_order=True)
        .agg("name", "count")
        .filter(pl.col("name").list.len() > 1)
    )
    return [
        ", ".join(f"{name!r} ({count:,})" for name, count in zip(names, numbers, strict=True))
        for names, numbers in groups.select("name", "count").iter_rows()
    ]
