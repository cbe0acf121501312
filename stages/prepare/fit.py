"""Statistics of the train split alone: gaps, categories, means; several columns at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import polars as pl

from stages.common.errors import UserError
from stages.features.columns import column_moments
from stages.features.kind import kind_of
from stages.features.schema import (
    Feature,
    Moments,
    Scale,
    Schema,
    Statistics,
    TargetTransform,
)
from stages.parallel.mapper import Local, Mapper
from stages.prepare.columns.target import transformed
from stages.prepare.table.table import Table, mapper_for

SOURCE = "prepare.source"
# Kinds of which a column takes as long as many others: dates are read, and texts cut, again.
SLOW = ("datetime", "text", "image")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Column:
    """A feature, and the table that has its column."""

    feature: Feature
    table: Table

    def parts(self) -> Iterator[pl.Series]:
        """The column, part by part."""
        return self.table.column_parts(self.feature.name)


def fit_schema(schema: Schema, train: Table, mapper: Mapper | None = None) -> Schema:
    """`schema` with each feature's gaps and categories as the train rows have them."""
    features = list(_map_columns(fit_column, schema, train, mapper))
    return schema.model_copy(update={"features": features})


def fit_column(column: Column) -> Feature:
    """A feature with what the rows of its column have."""
    return kind_of(column.feature.kind).fit(column.feature, column.parts(), SOURCE)


def tell(schema: Schema, table: Table, mapper: Mapper | None = None) -> list[str]:
    """Lines on the columns of `table` as they were fitted: what a kind cuts or gathers."""
    return [line for said in _map_columns(tell_column, schema, table, mapper) for line in said]


def tell_column(column: Column) -> list[str]:
    """Lines on one column."""
    return kind_of(column.feature.kind).tell(column.feature, column.parts())


def find_moments(column: Column) -> list[Moments]:
    """The moments of a column, as its kind has them."""
    return kind_of(column.feature.kind).moments(column.feature, column.parts(), SOURCE)


def _map_columns(
    function: Callable[[Column], Result], schema: Schema, table: Table, mapper: Mapper | None
) -> Iterator[Result]:
    """`function` of the column of each feature, several columns at a time; in their order."""
    columns = [Column(feature, table) for feature in schema.features]
    # Those that take long begin first, so that none is computed alone at the end.
    order = sorted(range(len(columns)), key=lambda place: columns[place].feature.kind not in SLOW)
    own = mapper_for(table, mapper or Local())
    if not own.is_remote:
        return own.map(function, columns)
    results = own.map(partial(_or_error, function), [columns[place] for place in order])
    found = dict(zip(order, results, strict=True))
    return (_raised(found[place]) for place in range(len(columns)))


def _or_error(function: Callable[[Column], Result], column: Column) -> Result | UserError:
    """The result, or the user's mistake in a column; one in an earlier column goes before it."""
    try:
        return function(column)
    except UserError as error:
        return error


def _raised(found: Result | UserError) -> Result:
    if isinstance(found, UserError):
        raise found
    return found


def fit_statistics(
    schema: Schema,
    train: Table,
    mapper: Mapper | None = None,
    target_transform: TargetTransform | None = None,
) -> Statistics:
    """Means and deviations (population, float64) over the train rows.

    Those of images are the scale of their feature where it has one.
    """
    numeric: dict[str, Moments] = {}
    image: list[Moments] = []
    wide: dict[str, list[Moments]] = {}
    found = _map_columns(find_moments, schema, train, mapper)
    for feature, moments in zip(schema.features, found, strict=True):
        if feature.is_array:
            image = moments
            if feature.scale is not None:
                # What new rows are compared with is what these are like all the same.
                image, wide[feature.name] = _as_given(feature, feature.scale), moments
        elif len(moments) == 1:
            (numeric[feature.name],) = moments
        elif moments:
            wide[feature.name] = moments
    target = None
    if schema.target.task == "regression":
        parts = train.column_parts(schema.target.name)
        target = column_moments(transformed(parts, target_transform), SOURCE)
        target = target.model_copy(update={"transform": target_transform})
    return Statistics(numeric=numeric, image=image, target=target, wide=wide)


def _as_given(feature: Feature, scale: Scale) -> list[Moments]:
    """The moments that pretrained weights expect, in the units of the images' numbers."""
    largest = 255.0 if feature.eight_bit else 1.0
    return [
        Moments(mean=mean * largest, deviation=std * largest)
        for mean, std in zip(scale.mean, scale.std, strict=True)
    ]
