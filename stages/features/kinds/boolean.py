"""True and false, (rows, values) float32: 1 and 0, gaps 0.

Behind the values stand zeros and ones for the gaps of each column in which train has some.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from stages.features.drift import Observed
from stages.features.graph import Graph, fill_gaps, join
from stages.features.kind import BY_TYPE, Described
from stages.features.numbers import Encoded, Sliced, gap_places, stack, with_missing
from stages.features.schema import Array, Feature, Moments, Statistics
from stages.features.spelling import BLANKS, NUMBER_TEXT, TRUE_WORDS

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

TYPE: Final = "float64"
PROGRAM_TYPE: Final = "float64"
GAP = "NaN"
NUMBERS = False
TRUTH = "true, false or null"


def guess(column: "pl.Series") -> float:
    """Return BY_TYPE for the type of truths alone: words and 0 and 1 are so where it is said."""
    import polars as pl

    return BY_TYPE if column.dtype == pl.Boolean else 0.0


def infer(column: "pl.Series", key: str) -> Feature:
    """Describe a column in which every value is true, false or a gap."""
    from stages.features.columns import as_boolean

    as_boolean(column, key)
    return Feature(name=column.name, kind="boolean")


def fit(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> Feature:
    """Return `feature` with whether the train rows have gaps."""
    from stages.features.columns import as_boolean

    num_gaps = sum(as_boolean(column, key).null_count() for column in parts)
    return feature.model_copy(update={"missing": num_gaps > 0})


def moments(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> list[Moments]:
    """Return none: truths stay as they are."""
    return []


def encode(
    features: list[Feature], table: "pl.DataFrame", statistics: Statistics, key: str
) -> Array:
    """Return 1 and 0 for all columns, and behind them their gaps."""
    from stages.features.columns import as_boolean

    values = [as_boolean(table[f.name], key) for f in features]
    columns = [v.fill_null(value=False).to_numpy() for v in values]
    gaps = [v.is_null().to_numpy() for f, v in zip(features, values, strict=True) if f.missing]
    return stack(columns + gaps, np.float32)


def must(feature: Feature) -> str:
    """Name the values that it takes."""
    return "true or false"


def from_text(feature: Feature, texts: "pl.Series") -> "pl.Series":
    """Return the texts: `as_boolean` reads words."""
    return texts


def feed(feature: Feature, column: "pl.Series", key: str) -> Array:
    """Return 1 and 0 as float64, with NaN for gaps."""
    from stages.features.columns import as_boolean, fill_nan

    return fill_nan(as_boolean(column, key))


feed_program = feed


def to_onnx(graph: Graph, features: list[Feature], names: list[str], statistics: Statistics) -> str:
    """Fill the gaps of all columns."""
    raw = join(graph, names, "/boolean/raw")
    gap = graph.node("IsNaN", [raw], "/boolean/nan")
    return fill_gaps(graph, raw, gap, features, "/boolean")


def constants(features: list[Feature], statistics: Statistics) -> dict[str, Array]:
    """Return which columns have gaps."""
    return {"boolean_with_gaps": np.array(gap_places(features), np.int64)}


def to_torch(
    features: list[Feature], raw: "Tensor", constant: Callable[[str], "Tensor"]
) -> "tuple[Tensor, Tensor | None]":
    """Fill the gaps of all columns."""
    gaps = ~raw.isfinite()
    return raw.masked_fill(gaps, 0.0), gaps


def tell(feature: Feature, parts: "Iterable[pl.Series]") -> list[str]:
    """Return nothing."""
    return []


def describe(feature: Feature, moments: list[Moments]) -> dict[str, Any]:
    """Return nothing more."""
    return {}


def read_values(described: Described, values: list[object]) -> npt.NDArray[Any]:
    """Return 1 and 0 as float64, with NaN for gaps."""
    return np.array([read_truth(value) for value in values], np.float64)


def read_truth(value: object) -> float:
    """1 or 0, or NaN for a gap; words such as 'yes' and 'no' are understood, and '1.0' is 1."""
    if value is None:
        return math.nan
    if isinstance(value, str):
        text = value.strip(BLANKS).lower()
        number = float(text) if NUMBER_TEXT.fullmatch(text) else math.nan
        found = float(TRUE_WORDS[text]) if text in TRUE_WORDS else number
        if found == 0 or found == 1:
            return abs(found)
    elif isinstance(value, int | float):
        if value == 0 or value == 1:
            return float(value)
        if value != value:
            return math.nan
    raise ValueError(TRUTH)


def read_tensor(described: Described, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return float64, of 0, 1 and NaN."""
    values = tensor.astype(np.float64)
    if not np.isin(values[values == values], (0.0, 1.0)).all():
        raise ValueError("0, 1 or a gap (null or NaN)")
    return values


def json_type(described: Described) -> dict[str, object]:
    """Return true or false, or null for a gap."""
    return {"type": ["boolean", "null"]}


def example(described: Described) -> object:
    """Return true."""
    return True


def slices(feature: Feature, train: Encoded, test: Encoded, moments: list[Moments]) -> Sliced:
    """Divide into false and true."""
    codes = np.array(test.values[:, 0]).astype(np.int64)
    return with_missing(["false", "true"], codes, test.gaps)


def observe(
    feature: Feature, column: "pl.Series", encoded: Encoded, moments: list[Moments]
) -> Observed:
    """Return nothing: training keeps no record of how often it was true."""
    return Observed()


def profile(feature: Feature, encoded: Encoded, moments: list[Moments]) -> list[Moments]:
    """Return the share of the true among those that are known, as a mean."""
    known = encoded.values[:, 0][~encoded.gaps]
    share = float(known.mean(dtype=np.float64)) if len(known) else 0.0
    deviation = math.sqrt(share * (1 - share))
    return [Moments(mean=share, deviation=deviation or 1.0, constant=deviation == 0)]
