"""Statistics of the train split alone: gaps, categories, means and deviations."""

import polars as pl

from stages.features.columns import column_moments
from stages.features.kind import kind_of
from stages.features.schema import Moments, Schema, Statistics

SOURCE = "prepare.source"


def fit_schema(schema: Schema, train: pl.DataFrame) -> Schema:
    """`schema` with each feature's gaps and categories as the train rows have them."""
    features = [kind_of(f.kind).fit(f, train[f.name], SOURCE) for f in schema.features]
    return schema.model_copy(update={"features": features})


def tell(schema: Schema, table: pl.DataFrame) -> list[str]:
    """Lines on the columns of `table` as they were fitted: what a kind cuts or gathers."""
    return [line for f in schema.features for line in kind_of(f.kind).tell(f, table[f.name])]


def fit_statistics(schema: Schema, train: pl.DataFrame) -> Statistics:
    """Means and deviations (population, float64) over the train rows."""
    numeric: dict[str, Moments] = {}
    image: list[Moments] = []
    wide: dict[str, list[Moments]] = {}
    for feature in schema.features:
        moments = kind_of(feature.kind).moments(feature, train[feature.name], SOURCE)
        if feature.is_array:
            image = moments
        elif len(moments) == 1:
            (numeric[feature.name],) = moments
        elif moments:
            wide[feature.name] = moments
    target = None
    if schema.target.task == "regression":
        target = column_moments(train[schema.target.name], SOURCE)
    return Statistics(numeric=numeric, image=image, target=target, wide=wide)
