"""Statistics of the train split alone: gaps, categories, means and deviations."""

from stages.features.columns import column_moments
from stages.features.kind import kind_of
from stages.features.schema import Moments, Schema, Statistics
from stages.prepare.table.table import Table

SOURCE = "prepare.source"


def fit_schema(schema: Schema, train: Table) -> Schema:
    """`schema` with each feature's gaps and categories as the train rows have them."""
    features = [kind_of(f.kind).fit(f, train.column_parts(f.name), SOURCE) for f in schema.features]
    return schema.model_copy(update={"features": features})


def tell(schema: Schema, table: Table) -> list[str]:
    """Lines on the columns of `table` as they were fitted: what a kind cuts or gathers."""
    return [
        line
        for f in schema.features
        for line in kind_of(f.kind).tell(f, table.column_parts(f.name))
    ]


def fit_statistics(schema: Schema, train: Table) -> Statistics:
    """Means and deviations (population, float64) over the train rows."""
    numeric: dict[str, Moments] = {}
    image: list[Moments] = []
    wide: dict[str, list[Moments]] = {}
    for feature in schema.features:
        moments = kind_of(feature.kind).moments(feature, train.column_parts(feature.name), SOURCE)
        if feature.is_array:
            image = moments
        elif len(moments) == 1:
            (numeric[feature.name],) = moments
        elif moments:
            wide[feature.name] = moments
    target = None
    if schema.target.task == "regression":
        target = column_moments(train.column_parts(schema.target.name), SOURCE)
    return Statistics(numeric=numeric, image=image, target=target, wide=wide)
