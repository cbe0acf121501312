"""Categories, (rows, columns) int64: a code for each text that train has, 0 for any other.

A gap has a code of its own, behind the last, where train has gaps; else it is 0 as well. Of more
than 1,000 texts in train the 999 most frequent have codes: the others are 0, so that train has
rows of it. 1 and 1.0 are one category; blanks around a text are no part of it.
"""

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from stages.features.drift import Observed
from stages.features.graph import Graph, join
from stages.features.kind import BY_TYPE, Described
from stages.features.numbers import Encoded, Rows, Sliced, stack, with_missing
from stages.features.schema import Array, Feature, Moments, Statistics
from stages.features.spelling import BLANKS, LEADING_ZERO, as_markdown

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

TYPE: Final = "string"
PROGRAM_TYPE: Final = "int64"
GAP = "''"
NUMBERS = False
# As many are slices of their own.
MAX_SLICES = 20
NONE_OF_THESE, NEW, OTHERS = "(missing or new)", "(new or rare)", "(others)"
# From it on, a float64 stands for more than one whole number.
FIRST_INEXACT = 2**53


def guess(column: "pl.Series") -> float:
    """Return BY_TYPE for texts, and for a column without any value."""
    import polars as pl

    return BY_TYPE if column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null) else 0.0


def infer(column: "pl.Series", key: str) -> Feature:
    """Describe a column of single values."""
    from stages.features.columns import check_single

    check_single(column)
    return Feature(name=column.name, kind="categorical")


def fit(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> Feature:
    """Return `feature` with the categories of the train rows, sorted, and whether it has gaps."""
    from stages.features.columns import MAX_CATEGORIES, NO_COUNTS, add_counts, as_category

    counts, missing = NO_COUNTS, False
    for column in parts:
        values = as_category(column)
        missing |= values.null_count() > 0
        counts = add_counts(counts, values)
    if counts.height > MAX_CATEGORIES:
        counts = counts.sort("count", "value", descending=[True, False]).head(MAX_CATEGORIES - 1)
    categories = counts["value"].sort().to_list()
    return feature.model_copy(update={"categories": categories, "missing": missing})


def moments(feature: Feature, parts: "Iterable[pl.Series]", key: str) -> list[Moments]:
    """Return none."""
    return []


def encode(
    features: list[Feature], table: "pl.DataFrame", statistics: Statistics, key: str
) -> Array:
    """Return the codes of all columns."""
    return stack([feed_program(f, table[f.name], key) for f in features], np.int64)


def must(feature: Feature) -> str:
    """Name the values that it takes."""
    return "a category"


def from_text(feature: Feature, texts: "pl.Series") -> "pl.Series":
    """Return each text as training calls it: a number is `1` however it is written.

    A truth is `true`. Not so `007`, which is another name than 7; and whole numbers keep all of
    their digits.
    """
    import polars as pl

    from stages.features.columns import as_category

    known = feature.categories or []
    others = texts.filter(~texts.is_in(known)).unique().drop_nulls()
    whole = others.cast(pl.Int128, strict=False).cast(pl.String)
    numbers = others.cast(pl.Float64, strict=False)
    exact = as_category(numbers.set(numbers.abs() >= FIRST_INEXACT, None))
    names = whole.fill_null(exact).set(others.str.contains(LEADING_ZERO), None)
    found: dict[str, str] = {}
    for text, number in zip(others, names, strict=True):
        for name in (number, text.lower() if text.lower() in ("true", "false") else None):
            if name in known:
                found[text] = name
    return texts.replace(found)


def feed(feature: Feature, column: "pl.Series", key: str) -> Array:
    """Return the texts, '' for a gap."""
    from stages.features.columns import as_category

    return np.array(as_category(column).fill_null("").to_list(), dtype=object)


def feed_program(feature: Feature, column: "pl.Series", key: str) -> Array:
    """Return the codes: a tensor holds no text."""
    from stages.features.columns import encode_codes

    return encode_codes(column, feature.categories or [], key, feature.gap_code)


def to_onnx(graph: Graph, features: list[Feature], names: list[str], statistics: Statistics) -> str:
    """Look up the code of each text."""
    codes = [_look_up(graph, f, name) for f, name in zip(features, names, strict=True)]
    return join(graph, codes, "/categorical")


def _look_up(graph: Graph, feature: Feature, name: str) -> str:
    # LabelEncoder takes no empty list; nothing is ever looked up.
    texts = [*(feature.categories or []), *([""] if feature.missing else [])] or ["\0"]
    return graph.node(
        "LabelEncoder",
        [name],
        f"/categorical/code/{name}",
        keys_strings=texts,
        values_int64s=list(range(1, len(texts) + 1)),
        default_int64=0,
    )


def constants(features: list[Feature], statistics: Statistics) -> dict[str, Array]:
    """Return none."""
    return {}


def to_torch(
    features: list[Feature], raw: "Tensor", constant: Callable[[str], "Tensor"]
) -> "tuple[Tensor, Tensor | None]":
    """Return the codes, as they are."""
    return raw, None


def tell(feature: Feature, parts: "Iterable[pl.Series]") -> list[str]:
    """Count the rows with a value that is too rare to be a category of its own."""
    from stages.features.columns import MAX_CATEGORIES, NO_COUNTS, add_counts, as_category

    categories, counts, num_rows = feature.categories or [], NO_COUNTS, 0
    if len(categories) != MAX_CATEGORIES - 1:
        return []
    for column in parts:
        counts, num_rows = add_counts(counts, as_category(column)), num_rows + column.len()
    if counts.height <= MAX_CATEGORIES:
        return []
    num_rare = int(counts.filter(~counts["value"].is_in(categories))["count"].sum())
    return [
        f"'{feature.name}' has {counts.height} different values: the {len(categories)} most "
        f"frequent in training are categories; the others, in {num_rare} of {num_rows} rows, "
        "are one to the model, with what training has not seen"
    ]


def describe(feature: Feature, moments: list[Moments]) -> dict[str, Any]:
    """Return the categories in the order of their codes, and whether the next one is a gap's."""
    gap = {"missing": True} if feature.missing else {}
    return {"categories": feature.categories, **gap}


def read_values(described: Described, values: list[object]) -> npt.NDArray[Any]:
    """Return the names of categories, and for a gap a text that no category has."""
    # '' may be one.
    gap = "\0" if "" in described.categories else ""
    return np.array([read_category(value, gap) for value in values], dtype=object)


def read_category(value: object, gap: str = "") -> str:
    """The name of a category: 1 and 1.0 are the same, a truth is 'true'; `gap` is for a gap.

    Blanks around a text are no part of it, and `é` is one whether it is composed or not.
    """
    if isinstance(value, str):
        text = value.strip(BLANKS)
        return (text if text.isascii() else unicodedata.normalize("NFC", text)) or gap
    if value is None:
        return gap
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float_text(value) if math.isfinite(value) else gap
    raise ValueError("a text, a number, a truth or null")


def _float_text(value: float) -> str:
    """Write a number as polars does: 2.0 as '2', small ones without a zero in the exponent."""
    if value.is_integer() and -(2.0**63) <= value < 2.0**63:
        return str(int(value))
    if 1e-5 <= abs(value) < 1e-4:
        return format(Decimal(repr(value)), "f")
    return repr(value).replace("e-0", "e-")


def read_tensor(described: Described, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the names of categories; numbers are their texts."""
    values = tensor.tolist()
    if tensor.dtype.kind == "f" and tensor.dtype.itemsize < 8:
        # The shortest text of a float32 is that of the number that was meant.
        values = [float(str(value)) for value in tensor]
    return read_values(described, values)


def json_type(described: Described) -> dict[str, object]:
    """Return a text, or null for a gap, with the first categories."""
    shown = ", ".join(described.categories[:12])
    more = ", …" if len(described.categories) > 12 else ""
    return {"type": ["string", "null"], "description": f"in training: {as_markdown(shown + more)}"}


def example(described: Described) -> object:
    """Return the first category."""
    return described.categories[0] if described.categories else None


def slices(feature: Feature, train: Encoded, test: Encoded, moments: list[Moments]) -> Sliced:
    """Divide into the categories that most test rows have, the others together, and the gaps."""
    codes = np.array(test.values[:, 0], np.int64)
    is_gap = codes == feature.gap_code
    labels, numbers = _frequent(feature.categories or [], np.where(is_gap, 0, codes))
    if not feature.missing:
        return labels, numbers
    return with_missing([*labels[:-1], NEW], numbers, is_gap)


def _frequent(categories: Sequence[str], codes: Rows) -> tuple[list[str], Rows]:
    counts = np.bincount(codes, minlength=len(categories) + 1)
    kept = np.argsort(-counts[1:], kind="stable")[:MAX_SLICES] + 1
    numbers = np.full(len(counts), len(kept))
    numbers[kept] = np.arange(len(kept))
    numbers[0] = len(kept) + 1
    return [*(categories[code - 1] for code in kept), OTHERS, NONE_OF_THESE], numbers[codes]


def observe(
    feature: Feature, column: "pl.Series", encoded: Encoded, moments: list[Moments]
) -> Observed:
    """Return the values that are none of training's, and the number of gaps, which are none."""
    import polars as pl

    from stages.features.columns import as_category

    values = as_category(column)
    new = values.filter(pl.Series(encoded.gaps)).drop_nulls()
    return Observed(values.null_count(), unseen=new)


def profile(feature: Feature, encoded: Encoded, moments: list[Moments]) -> list[Moments]:
    """Return none: codes have no mean."""
    return []
