"""Statistics of the train split alone: gaps, categories, means; several columns at a time."""

from stages.features.columns import column_moments
from stages.features.kind import kind_of
from stages.features.schema import Feature, Moments, Schema, Statistics
from stages.formats.thread_map import map_in_order, num_threads
from stages.prepare.table.table import Table

SOURCE = "prepare.source"


def fit_schema(schema: Schema, train: Table) -> Schema:
    """`schema` with each feature's gaps and categories as the train rows have them."""

    def fit(feature: Feature) -> Feature:
        parts = train.column_parts(feature.name)
        return kind_of(feature.kind).fit(feature, parts, SOURCE)

    features = list(map_in_order(fit, schema.features, num_threads()))
    return schema.model_copy(update={"features": features})


def tell(schema: Schema, table: Table) -> list[str]:
    """Lines on the columns of `table` as they were fitted: what a kind cuts or gathers."""

    def tell_one(feature: Feature) -> list[str]:
        return kind_of(feature.kind).tell(feature, table.column_parts(feature.name))

    return [
        line for said in map_in_order(tell_one, schema.features, num_threads()) for line in said
    ]


def fit_statistics(schema: Schema, train: Table) -> Statistics:
    """Means and deviations (population, float64) over the train rows."""

    def find_moments(feature: Feature) -> list[Moments]:
        parts = train.column_parts(feature.name)
        return kind_of(feature.kind).moments(feature, parts, SOURCE)

    numeric: dict[str, Moments] = {}
    image: list[Moments] = []
    wide: dict[str, list[Moments]] = {}
    found = map_in_order(find_moments, schema.features, num_threads())
    for feature, moments in zip(schema.features, found, strict=True):
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
