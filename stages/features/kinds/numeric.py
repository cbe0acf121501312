"""Numbers, (rows, values) float32: standardised by the train rows, gaps 0.

Behind the values stand zeros and ones for the gaps of each column in which train has some. NaN and
infinities are gaps.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from stages.features.drift import Observed, Sums
from stages.features.graph import Graph, fill_gaps, join
from stages.features.kind import BY_TYPE, Described
from stages.features.numbers import Encoded, Sliced, gap_places, quartiles, stack, with_missing
from stages.features.schema import Array, Feature, Moments, Statistics
from stages.features.spelling import MAX_FLOAT32, as_number, explain_signs

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

TYPE: Final = "float64"
PROGRAM_TYPE: Final = "float64"
GAP = "NaN"
NUMBERS = True
NUMBER = "a number or null"
COMPUTABLE = "a number that can be computed with"
# Enough train rows for quartiles.
MAX_TRAIN_ROWS = 100_000
_TRUTHS = {"true": "1", "false": "0"}


def guess(column: "pl.Series") -> float:
    """Return BY_TYPE for a type of numbers."""
    return BY_TYPE if column.dtype.is_numeric() else 0.0


def infer(column: "pl.Series", key: str) -> Feature:
    """Describe a column in which every value is a number or a gap."""
    from stages.features.columns import as_numeric

    as_numeric(column, key)
    return Feature(name=column.name, kind="numeric")


def fit(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> Feature:
    """Return `feature` with whether the train rows have gaps."""
    from stages.features.columns import as_numeric

    num_gaps = sum(as_numeric(column, key, feature).null_count() for column in parts)
    return feature.model_copy(update={"missing": num_gaps > 0})


def moments(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> list[Moments]:
    """Return mean and deviation of the train rows that have a value."""
    from stages.features.columns import column_moments

    return [column_moments(parts, key, feature)]


def encode(
    features: list[Feature], table: "pl.DataFrame", statistics: Statistics, key: str
) -> Array:
    """Return the standardised values of all columns, and behind them their gaps."""
    from stages.features.columns import as_numeric, fits_float32, too_large

    columns: list[Array] = []
    gaps: list[Array] = []
    for feature in features:
        values = as_numeric(table[feature.name], key, feature)
        own = statistics.numeric[feature.name]
        scaled = (values - own.mean) / own.deviation
        if not fits_float32(scaled):
            raise too_large(values, key)
        columns.append(scaled.fill_null(0.0).to_numpy())
        if feature.missing:
            gaps.append(values.is_null().to_numpy())
    return stack(columns + gaps, np.float32)


def must(feature: Feature) -> str:
    """Name the values that it takes."""
    return COMPUTABLE


def from_text(feature: Feature, texts: "pl.Series") -> "pl.Series":
    """Return the numbers that stand in texts; texts, where one of them is none."""
    import polars as pl

    # How its numbers are written, `as_numeric` knows.
    if texts.dtype != pl.String or feature.decimal is not None:
        return texts
    values = texts.cast(pl.Float64, strict=False)
    if values.null_count() == texts.null_count():
        return values
    # Training takes a column of truths for numbers where it is told so.
    return texts.replace(_TRUTHS)


def feed(feature: Feature, column: "pl.Series", key: str) -> Array:
    """Return float64 with NaN for gaps."""
    from stages.features.columns import as_numeric, fill_nan

    return fill_nan(as_numeric(column, key, feature))


feed_program = feed


def to_onnx(graph: Graph, features: list[Feature], names: list[str], statistics: Statistics) -> str:
    """Standardise all columns at once: one operator a column would take three times as long."""
    raw = join(graph, names, "/numeric/raw")
    gap = graph.node("IsNaN", [raw], "/numeric/nan")
    gap = graph.node("Or", [gap, graph.node("IsInf", [raw], "/numeric/inf")], "/numeric/gap")
    moments = [statistics.numeric[feature.name] for feature in features]
    mean = graph.constant(np.array([m.mean for m in moments]), "/numeric/mean")
    deviation = graph.constant(np.array([m.deviation for m in moments]), "/numeric/deviation")
    value = graph.node("Sub", [raw, mean], "/numeric/centred")
    value = graph.node("Div", [value, deviation], "/numeric/scaled")
    return fill_gaps(graph, value, gap, features, "/numeric")


def constants(features: list[Feature], statistics: Statistics) -> dict[str, Array]:
    """Return means and deviations, and which columns have gaps."""
    moments = [statistics.numeric[feature.name] for feature in features]
    return {
        "mean": np.array([m.mean for m in moments], np.float64),
        "deviation": np.array([m.deviation for m in moments], np.float64),
        "numeric_with_gaps": np.array(gap_places(features), np.int64),
    }


def to_torch(
    features: list[Feature], raw: "Tensor", constant: Callable[[str], "Tensor"]
) -> "tuple[Tensor, Tensor | None]":
    """Standardise all columns at once."""
    gaps = ~raw.isfinite()
    values = (raw - constant("mean")) / constant("deviation")
    return values.masked_fill(gaps, 0.0), gaps


def tell(feature: Feature, parts: "Iterable[pl.Series]") -> list[str]:
    """Return nothing."""
    return []


def describe(feature: Feature, moments: list[Moments]) -> dict[str, Any]:
    """Return mean and deviation of training, and how texts of numbers are written."""
    described: dict[str, Any] = {"mean": moments[0].mean, "deviation": moments[0].deviation}
    if feature.decimal is not None:
        described |= {"decimal": feature.decimal, "thousands": feature.thousands}
        return described if feature.unit is None else {**described, "unit": feature.unit}
    return described


def read_values(described: Described, values: list[object]) -> npt.NDArray[Any]:
    """Return float64 with NaN for gaps; a number must fit into float32 once it is standardised."""
    low, high = bounds(described)
    if described.decimal is not None:
        values = [_as_float(v, described) if isinstance(v, str) else v for v in values]
    return np.array([_read(value, low, high) for value in values], np.float64)


def bounds(described: Described) -> tuple[float, float]:
    """Between which numbers float32 holds the standardised value."""
    mean, reach = described.mean or 0.0, MAX_FLOAT32 * (described.deviation or 1.0)
    return mean - reach, mean + reach


def _read(value: object, low: float, high: float) -> float:
    number = value if type(value) is float else _as_float(value)
    if low <= number <= high:
        return number
    if math.isfinite(number):
        raise ValueError(COMPUTABLE)
    return math.nan


def _as_float(value: object, described: Described | None = None) -> float:
    if value is None:
        return math.nan
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(COMPUTABLE) from None
    if isinstance(value, str):
        signs: tuple[str | None, str | None, str | None] = (None, None, None)
        if described is not None:
            signs = described.decimal, described.thousands, described.unit
        number = as_number(value, *signs)
        if number is not None:
            return number
        raise ValueError(NUMBER + explain_signs(value, *signs))
    raise ValueError(NUMBER)


def read_tensor(described: Described, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return float64; all but gaps must fit into float32 once they are standardised."""
    values = tensor.astype(np.float64)
    present = values[np.isfinite(values)]
    low, high = bounds(described)
    if not ((present >= low) & (present <= high)).all():
        raise ValueError("numbers that can be computed with")
    return values


def json_type(described: Described) -> dict[str, object]:
    """Return a number, or null for a gap."""
    return {"type": ["number", "null"], "description": f"mean in training {described.mean:.4g}"}


def example(described: Described) -> object:
    """Return the mean of training."""
    return float(f"{described.mean or 0.0:.4g}")


def slices(feature: Feature, train: Encoded, test: Encoded, moments: list[Moments]) -> Sliced:
    """Cut at the quartiles of the train rows; slices of two models on the same data are equal."""
    step = -(-len(train.values) // MAX_TRAIN_ROWS)
    seen = train.values[::step, 0].astype(np.float64)[~train.gaps[::step]]
    values = test.values[:, 0].astype(np.float64)
    found = quartiles(seen, values, lambda scaled: _in_units(scaled, moments[0]))
    return with_missing(*found, test.gaps)


def _in_units(scaled: float, moments: Moments) -> str:
    """A standardised value as it was, to a thousandth of the deviation: 0 for what float32 left."""
    digits = 3 - math.floor(math.log10(moments.deviation))
    return f"{round(scaled * moments.deviation + moments.mean, digits) + 0.0:.6g}"


def observe(
    feature: Feature, column: "pl.Series", encoded: Encoded, moments: list[Moments]
) -> Observed:
    """Return the sums of the standardised values, and how many values are none."""
    sums, gaps = Sums(), _count_gaps(feature, column)
    sums.add_scaled(encoded.values[:, 0], column.len() - gaps)
    return Observed(gaps, [sums])


def _count_gaps(feature: Feature, column: "pl.Series") -> int:
    """Count the values that are none to compute with, infinities among them."""
    from stages.features.columns import as_numeric

    if feature.missing_words is None and column.dtype.is_integer():
        return column.null_count()
    if feature.missing_words is None and column.dtype.is_float():
        return column.len() - int(column.is_finite().sum())
    return as_numeric(column, column.name, feature).null_count()


def profile(feature: Feature, encoded: Encoded, moments: list[Moments]) -> list[Moments]:
    """Return mean and deviation of training."""
    return moments
