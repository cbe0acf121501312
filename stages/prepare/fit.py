"""Statistics of the train split alone: gaps, categories, means; several columns at a time."""

from stages.common.errors import Problem, UserError
from stages.features.columns import column_moments
from stages.features.kind import kind_of
from stages.features.schema import Feature, Moments, Schema, Statistics
from stages.formats.thread_map import map_in_order, num_threads
from stages.prepare.params import Normalize
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


def fit_statistics(schema: Schema, train: Table, normalize: Normalize | None = None) -> Statistics:
    """Means and deviations (population, float64) over the train rows.

    Those of images are `normalize` where it is given. Raises UserError where it has not a number
    for each channel, or there are no images.
    """

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
    if normalize is not None:
        image = _as_given(schema, normalize, len(image))
    target = None
    if schema.target.task == "regression":
        target = column_moments(train.column_parts(schema.target.name), SOURCE)
    return Statistics(numeric=numeric, image=image, target=target, wide=wide)


def _as_given(schema: Schema, normalize: Normalize, num_channels: int) -> list[Moments]:
    """The moments that pretrained weights expect, in the units of the images' numbers."""
    key = "prepare.normalize"
    images = schema.of_kind("image")
    if not images:
        raise UserError(Problem("there are no images to normalize", key, allowed=("null",)))
    for name, numbers in (("mean", normalize.mean), ("std", normalize.std)):
        if len(numbers) != num_channels:
            message = f"images of {num_channels} channels take as many numbers, not {len(numbers)}"
            raise UserError(Problem(message, f"{key}.{name}", str(numbers)))
    largest = 255.0 if images[0].eight_bit else 1.0
    return [
        Moments(mean=mean * largest, deviation=std * largest)
        for mean, std in zip(normalize.mean, normalize.std, strict=True)
    ]
