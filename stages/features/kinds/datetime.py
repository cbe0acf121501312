"""Dates and times, (rows, values) float32: the time, standardised, and where it is in its cycles.

Of a column they are its seconds since 1970, standardised by the train rows, and sine and cosine of
the place in the year (of 365.2425 days), in the week and in the day: of each cycle that the train
rows span as a whole and are not all at the same place of; of a column with `calendar` the places
alone. Gaps are 0; behind the values of all columns stand zeros and ones for the gaps of each column
in which train has some. What has an offset from UTC or a zone is in UTC.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from stages.features.dates.cycles import STEPS, parts_of, waves_of
from stages.features.dates.graph import compute, find_gaps
from stages.features.drift import Observed, Sums
from stages.features.graph import Graph, add_gaps, join
from stages.features.kind import BY_VALUES, Described
from stages.features.numbers import (
    Encoded,
    Sliced,
    gap_places,
    join_spreads,
    moments_of,
    quartiles,
    spread_of,
    stack,
    with_missing,
)
from stages.features.schema import Array, Feature, Moments, Statistics
from stages.features.spelling import BLANKS
from stages.features.times import (
    DAY,
    FIRST,
    ISO,
    LAST,
    PERIODS,
    UNIX,
    find_cycles,
    name_format,
    read_text,
    write_text,
)

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

TYPE: Final = "float64"
PROGRAM_TYPE: Final = "float64"
GAP = "NaN"
NUMBERS = False


def guess(column: "pl.Series") -> float:
    """Return BY_VALUES for dates, and for texts of which more than half are some."""
    from stages.features.dates.columns import are_dates

    return BY_VALUES if are_dates(column) else 0.0


def infer(column: "pl.Series", key: str) -> Feature:
    """Describe a column of dates in one format: the only one that all of its values have."""
    return with_format(column, None)


def with_format(column: "pl.Series", form: str | None, words: Sequence[object] = ()) -> Feature:
    """Describe a column of dates without `words` for gaps; form None: the only one that fits."""
    from stages.features.dates.columns import find_format

    form, zone = find_format(column, form, words)
    own = None if form == ISO else form
    return Feature(name=column.name, kind="datetime", format=own, zone=zone)


def fit(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> Feature:
    """Return `feature` with its gaps and cycles as the train rows have them."""
    seconds = (_seconds(feature, column, key) for column in parts)
    cycles, has_gaps = find_cycles(seconds, feature.format)
    if feature.calendar and not cycles:
        from stages.common.errors import Problem, UserError

        message = (
            f"the dates in '{feature.name}' span no whole year, week or day in the train rows, or "
            "are all at one place of it: without the time nothing is left to learn from"
        )
        key = f"prepare.columns.{feature.name}"
        raise UserError(Problem(message, key, allowed=("datetime", "exclude")))
    found = feature.model_copy(update={"missing": has_gaps, "cycles": cycles or None})
    return found.model_copy(update={"width": len(parts_of(found))})


def moments(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> list[Moments]:
    """Return mean and deviation of the seconds since 1970."""
    from stages.common.errors import Problem, UserError

    found = (_seconds(feature, column, key) for column in parts)
    known = (seconds[~np.isnan(seconds)] for seconds in found)
    spreads = [spread_of(seconds) for seconds in known if len(seconds)]
    if not spreads:
        message = f"the column '{feature.name}' has no value in the train split: exclude it"
        raise UserError(Problem(message, f"prepare.columns.{feature.name}", allowed=("exclude",)))
    return [moments_of(join_spreads(spreads))]


def encode(
    features: list[Feature], table: "pl.DataFrame", statistics: Statistics, key: str
) -> Array:
    """Return the values of all columns, and behind them their gaps."""
    columns: list[Array] = []
    gaps: list[Array] = []
    for feature in features:
        seconds = _seconds(feature, table[feature.name], key)
        own, is_gap = statistics.numeric[feature.name], np.isnan(seconds)
        values = [] if feature.calendar else [(seconds - own.mean) / own.deviation]
        for cycle in feature.cycles or []:
            values += waves_of(seconds, cycle)
        columns += [np.where(is_gap, 0.0, each) for each in values]
        if feature.missing:
            gaps.append(is_gap)
    return stack(columns + gaps, np.float32)


def must(feature: Feature) -> str:
    """Name the values that it takes."""
    return name_format(feature.format, feature.zone)


def from_text(feature: Feature, texts: "pl.Series") -> "pl.Series":
    """Return the texts."""
    return texts


def feed(feature: Feature, column: "pl.Series", key: str) -> Array:
    """Return seconds since 1970, NaN for a gap."""
    return _seconds(feature, column, key)


feed_program = feed


def to_onnx(graph: Graph, features: list[Feature], names: list[str], statistics: Statistics) -> str:
    """Compute the values of one column after the other."""
    zero = graph.constant(np.array(0.0, np.float32), "/datetime/zero")
    columns = []
    for feature, name in zip(features, names, strict=True):
        gap = find_gaps(graph, name, f"/datetime/{name}")
        for number, value in enumerate(compute(graph, feature, name, statistics)):
            filled = f"/datetime/{name}/filled{number}"
            columns.append(graph.node("Where", [gap, zero, value], filled))
    gaps = find_gaps(graph, join(graph, names, "/datetime/raw"), "/datetime")
    return add_gaps(graph, join(graph, columns, "/datetime/values"), gaps, features, "/datetime")


def constants(features: list[Feature], statistics: Statistics) -> dict[str, Array]:
    """Return means and deviations, and which columns have gaps."""
    if not features:
        return {}
    moments = [statistics.numeric[feature.name] for feature in features]
    # Of each value of the array: its column, and the cycle of which it is the sine or the cosine.
    values = [
        (place, cycle, part)
        for place, feature in enumerate(features)
        for cycle, part in parts_of(feature)
    ]
    columns = [place for place, _, _ in values]
    return {
        "datetime_mean": np.array([m.mean for m in moments], np.float64),
        "datetime_deviation": np.array([m.deviation for m in moments], np.float64),
        "datetime_column": np.array(columns, np.int64),
        "datetime_period": np.array([PERIODS[c] if c else 1.0 for _, c, _ in values], np.float64),
        "datetime_sine": np.array([part == "sin" for _, _, part in values], np.bool_),
        "datetime_cosine": np.array([part == "cos" for _, _, part in values], np.bool_),
        "datetime_with_gaps": np.array(gap_places(features), np.int64),
    }


def to_torch(
    features: list[Feature], raw: "Tensor", constant: Callable[[str], "Tensor"]
) -> "tuple[Tensor, Tensor | None]":
    """Compute all values of all columns at once, and take of each what it is."""
    gaps = ~raw.isfinite()
    column = constant("datetime_column")
    scaled = (raw - constant("datetime_mean")) / constant("datetime_deviation")
    turns = raw[:, column] / constant("datetime_period")
    angle = 2 * math.pi * (turns - turns.floor())
    sine, cosine = ((wave * STEPS).round() / STEPS for wave in (angle.sin(), angle.cos()))
    values = sine.where(constant("datetime_sine"), scaled[:, column])
    values = cosine.where(constant("datetime_cosine"), values)
    return values.masked_fill(gaps[:, column], 0.0), gaps


def tell(feature: Feature, parts: "Iterable[pl.Series]") -> list[str]:
    """Describe the format of a column, and the numbers made of it."""
    form = feature.format or ISO
    zone = "" if feature.zone is None else f", its zone {feature.zone}, in UTC"
    time = [] if feature.calendar else ["the time"]
    learned = ", ".join([*time, *(f"the place in the {cycle}" for cycle in feature.cycles or [])])
    return [f"'{feature.name}' is dates ({form}{zone}): learned from are {learned}"]


def describe(feature: Feature, moments: list[Moments]) -> dict[str, Any]:
    """Return mean and deviation of training in seconds since 1970, the format and the zone."""
    return {
        "mean": moments[0].mean,
        "deviation": moments[0].deviation,
        "format": feature.format,
        "zone": feature.zone,
    }


def read_values(described: Described, values: list[object]) -> npt.NDArray[Any]:
    """Return seconds since 1970, NaN for a gap."""
    return np.array([_read(value, described) for value in values], np.float64)


def _read(value: object, described: Described) -> float:
    if value is None:
        return math.nan
    # A number is one of a format of digits alone.
    value = str(value) if type(value) in (int, float) else value
    if isinstance(value, str):
        text = value.strip(BLANKS)
        if not text:
            return math.nan
        seconds, aware = read_text(text, described.format or ISO)
        if not math.isnan(seconds) and aware == (described.zone is not None):
            return seconds
    raise ValueError(f"{name_format(described.format, described.zone)} or null")


def read_tensor(described: Described, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return float64, of seconds since 1970 and NaN."""
    values = tensor.astype(np.float64)
    known = values[~np.isnan(values)]
    if not ((known >= FIRST) & (known < LAST)).all():
        raise ValueError("seconds since 1970, of the years 1 to 9999")
    return values


def json_type(described: Described) -> dict[str, object]:
    """Return a text, of a format of numbers a number as well, or null for a gap."""
    kinds = [*(["number"] if described.format in UNIX else []), "string", "null"]
    must = name_format(described.format, described.zone)
    return {"type": kinds, "description": f"{must}, as {example(described)}"}


def example(described: Described) -> object:
    """Return the mean of training."""
    aware = described.zone is not None
    return write_text(described.mean or 0.0, described.format or ISO, aware=aware)


def slices(
    feature: Feature, train: Encoded, test: Encoded, moments: list[Moments]
) -> Sliced | None:
    """Cut at the quartiles of the train rows; slices of two models on the same data are equal."""
    if feature.calendar:
        return None
    (own,) = moments
    seen, values = (
        np.asarray(each.values[:, 0], np.float64) * own.deviation + own.mean
        for each in (train, test)
    )
    # float32 holds a time to some seconds.
    days = own.deviation > DAY and "day" not in (feature.cycles or [])
    unit = DAY if days else 60.0 if own.deviation > DAY else 1.0
    seen, values = (np.round(each / unit) * unit for each in (seen[~train.gaps], values))
    return with_missing(*quartiles(seen, values, _show), test.gaps)


def _show(seconds: float) -> str:
    return write_text(seconds, ISO, aware=False)


def observe(
    feature: Feature, column: "pl.Series", encoded: Encoded, moments: list[Moments]
) -> Observed:
    """Return the sums of the times, and how many values are none; later ones are no drift."""
    sums, gaps = Sums(), int(np.isnan(_seconds(feature, column, column.name)).sum())
    if feature.calendar:
        return Observed(gaps)
    sums.add_scaled(encoded.values[:, 0], column.len() - gaps)
    return Observed(gaps, [sums])


def profile(feature: Feature, encoded: Encoded, moments: list[Moments]) -> list[Moments]:
    """Return mean and deviation of the times, of a calendar none: later ones are no drift."""
    return [] if feature.calendar else moments


def _seconds(feature: Feature, column: "pl.Series", key: str) -> npt.NDArray[np.float64]:
    """Seconds since 1970 in UTC, NaN for a gap. Raises UserError for anything else."""
    from stages.features.dates.columns import as_seconds

    return as_seconds(column, feature.format, must(feature), key, aware=feature.zone is not None)
