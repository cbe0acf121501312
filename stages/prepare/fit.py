"""What is learnt from the train split alone: gaps, categories, means and deviations."""

import math

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.errors import Problem, UserError
from stages.features.encode import (
    as_boolean,
    as_category,
    as_numeric,
    image_array,
    too_large,
)
from stages.features.schema import Array, Feature, Moments, Schema, Statistics

SOURCE = "prepare.source"
# Units in the last place by which a sum or a conversion leaves equal values apart.
ROUNDING = 8


def fit_schema(schema: Schema, train: pl.DataFrame) -> Schema:
    """`schema` with each feature's gaps and categories as the train rows have them."""
    features = [_fit_feature(feature, train[feature.name]) for feature in schema.features]
    return schema.model_copy(update={"features": features})


def _fit_feature(feature: Feature, column: pl.Series) -> Feature:
    if feature.kind == "numeric":
        gaps = as_numeric(column, SOURCE).null_count() > 0
        return feature.model_copy(update={"missing": gaps})
    if feature.kind == "boolean":
        gaps = as_boolean(column, SOURCE).null_count() > 0
        return feature.model_copy(update={"missing": gaps})
    if feature.kind == "categorical":
        categories = as_category(column).drop_nulls().unique().sort().to_list()
        return feature.model_copy(update={"categories": categories})
    return feature


def fit_statistics(schema: Schema, train: pl.DataFrame) -> Statistics:
    """Means and deviations (population, float64) over the train rows."""
    numeric = {f.name: _moments(train[f.name]) for f in schema.of_kind("numeric")}
    image = []
    for feature in schema.of_kind("image"):
        image = _channel_moments(image_array(train[feature.name], feature, SOURCE))
    regression = schema.target.task == "regression"
    target = _moments(train[schema.target.name]) if regression else None
    return Statistics(numeric=numeric, image=image, target=target)


def _moments(column: pl.Series) -> Moments:
    numbers = as_numeric(column, SOURCE).drop_nulls()
    values = numbers.to_numpy()
    if values.size == 0:
        message = f"the column '{column.name}' has no value in the train split: exclude it"
        key = f"prepare.columns.{column.name}"
        raise UserError(Problem(message, key=key, allowed=("exclude",)))
    moments = moments_of(values, np.float32 if column.dtype == pl.Float32 else np.float64)
    # Not finite where the sum of the values, or of their squares, is too large.
    if not math.isfinite(moments.mean + moments.deviation):
        raise too_large(numbers, SOURCE)
    return moments


def moments_of(values: npt.NDArray[np.float64], kind: type[np.floating] = np.float64) -> Moments:
    """Mean and population deviation of some values, which were kept as `kind`.

    Values that differ by no more than rounding (ROUNDING units in the last place) are constant:
    the deviation that rounding leaves would make noise of size one of them.
    """
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(values.mean()), float(values.std())
    if high - low <= ROUNDING * float(np.finfo(kind).eps) * size:
        # The mean, too, is rounded: of 14.62 it may lie beside 14.62.
        return Moments(mean=min(max(mean, low), high), deviation=1.0, constant=True)
    # The squares of very small numbers are none.
    return Moments(mean=mean, deviation=deviation or float((values / size).std()) * size)


def _channel_moments(images: Array) -> list[Moments]:
    """One entry a channel of (rows, channels, height, width), summed exactly in float64."""
    kind = np.float64 if images.dtype == np.uint8 else np.float32
    channels = range(images.shape[1])
    return [moments_of(images[:, channel].astype(np.float64), kind) for channel in channels]
