"""Columns in the array of their kind, moments, and the shape of an image: NumPy alone."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from stages.features.schema import CODES, WORDS, Array, Feature, Moments, Place

Rows = npt.NDArray[np.int64]
# The labels of a column's slices, and for each row the number of its own.
Sliced = tuple[list[str], Rows]
MISSING = "(missing)"
QUARTILES = (0.25, 0.5, 0.75)
# Units in the last place by which a sum or a conversion leaves equal values apart.
ROUNDING = 8


def stack(columns: Sequence[Array], dtype: type[np.generic]) -> Array:
    """Columns (rows,) side by side: (rows, columns)."""
    stacked = np.empty((len(columns[0]), len(columns)), dtype)
    for place, column in enumerate(columns):
        stacked[:, place] = column
    return stacked


def gap_places(features: Sequence[Feature]) -> list[int]:
    """The numbers of the columns in which train has gaps, among those of their kind."""
    return [number for number, feature in enumerate(features) if feature.missing]


def image_shape(feature: Feature) -> tuple[int, ...]:
    """The shape of one image in its column, as the layout has it."""
    channels, height, width = feature.shape or []
    return {
        "HW": (height, width),
        "CHW": (channels, height, width),
        "HWC": (height, width, channels),
    }[feature.layout or "HW"]


def row_shape(feature: Feature) -> list[int]:
    """The shape of one row's value as an input of a model; of an image, as its layout has it."""
    if feature.kind in WORDS:
        return [feature.width]
    return list(image_shape(feature)) if feature.is_array else []


@dataclass(frozen=True)
class Spread:
    """Some values in brief: how many, their range, mean and population deviation (0: all equal)."""

    count: int
    low: float
    high: float
    mean: float
    deviation: float


def spread_of(values: npt.NDArray[np.float64]) -> Spread:
    """The spread of some values, of which there is one at least."""
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(values.mean()), float(values.std())
    if high > low and not deviation:
        # The squares of very small numbers are none.
        deviation = float((values / size).std()) * size
    return Spread(len(values), low, high, mean, deviation)


def join_spreads(spreads: Sequence[Spread]) -> Spread:
    """The spread of the values of all parts together; of one part its own, to the last bit.

    Chan, Golub and LeVeque, 'Updating formulae and a pairwise algorithm for computing sample
    variances' (1979).
    """
    if len(spreads) == 1:
        return spreads[0]
    low, high = min(s.low for s in spreads), max(s.high for s in spreads)
    size = max(abs(low), abs(high)) or 1.0
    count = sum(s.count for s in spreads)
    mean = sum(s.mean * (s.count / count) for s in spreads)
    squares = (
        (s.count / count) * ((s.deviation / size) ** 2 + ((s.mean - mean) / size) ** 2)
        for s in spreads
    )
    return Spread(count, low, high, mean, math.sqrt(sum(squares)) * size)


def moments_of(
    values: npt.NDArray[np.float64] | Spread, kind: type[np.floating] = np.float64
) -> Moments:
    """Mean and population deviation of some values, which were kept as `kind`.

    Values that differ by no more than rounding (ROUNDING units in the last place) are constant:
    the deviation that rounding leaves would make noise of size one of them.
    """
    spread = values if isinstance(values, Spread) else spread_of(values)
    low, high = spread.low, spread.high
    if high - low <= ROUNDING * float(np.finfo(kind).eps) * max(abs(low), abs(high)):
        # The mean, too, is rounded: of 14.62 it may lie beside 14.62.
        return Moments(mean=min(max(spread.mean, low), high), deviation=1.0, constant=True)
    return Moments(mean=spread.mean, deviation=spread.deviation)


@dataclass(frozen=True)
class Encoded:
    """A column in the arrays of a split, often memory-mapped: read where it is used.

    `values`: its numbers, or its code, (rows, width); of images (rows, channels, height, width).
    `flags` (rows,): ones where it is empty; None: train has no gaps in it.
    """

    values: Array
    flags: Array | None = None
    coded: bool = False
    gap_code: int = 0

    @property
    def gaps(self) -> npt.NDArray[np.bool_]:
        """The places of gaps (rows,); of codes also where train has not seen the value."""
        if self.coded:
            return np.isin(self.values[:, 0], (0, self.gap_code))
        if self.flags is None:
            return np.zeros(len(self.values), dtype=np.bool_)
        return np.asarray(self.flags).astype(np.bool_)


def take_column(feature: Feature, place: Place | None, arrays: Mapping[str, Array]) -> Encoded:
    """A column of `arrays`; `place` is that of `Schema.places`, None for images."""
    array = arrays[feature.kind]
    if place is None:
        return Encoded(array)
    flags = None if place.gap is None else array[:, place.gap]
    return Encoded(array[:, place.values], flags, feature.kind in CODES, feature.gap_code)


def quartiles(
    seen: npt.NDArray[np.float64], values: npt.NDArray[np.float64], show: Callable[[float], str]
) -> Sliced:
    """Cut `values` at the quartiles of `seen`, of which some are there; `show` writes an edge.

    A value on an edge is in the slice below it.
    """
    different = np.unique(seen)
    if len(different) <= len(QUARTILES) + 1:
        # A number that takes few values: the middles between them are the edges.
        edges = (different[1:] + different[:-1]) / 2
        return [show(value) for value in different], np.searchsorted(edges, values)
    edges = np.unique(np.quantile(seen, QUARTILES, method="lower"))
    marks = [show(edge) for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(marks)]
    return [f"up to {marks[0]}", *between, f"above {marks[-1]}"], np.searchsorted(edges, values)


def with_missing(labels: list[str], codes: Rows, gaps: npt.NDArray[np.bool_]) -> Sliced:
    """Slices of a column, with one more for the rows in which it is empty."""
    return [*labels, MISSING], np.where(gaps, len(labels), codes)
