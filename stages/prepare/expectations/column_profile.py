"""Each column at a glance: type, gaps, range or most frequent values, a small histogram."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from stages.common.errors import shorten
from stages.prepare.expectations.result import number, share

Shown = tuple[tuple[str, str], ...]
Numbers = np.ndarray[Any, Any]
NUM_BINS = 24
MAX_VALUES_SHOWN = 4
# Up to it, bars of whole numbers are of whole width.
MAX_WHOLE_RANGE = 10 * NUM_BINS
TEXTS = (pl.String, pl.Boolean, pl.Categorical, pl.Enum)


@dataclass(frozen=True)
class Overview:
    """One column. `bars` are counts, from the smallest value to the largest."""

    name: str
    dtype: str
    missing: int
    facts: Shown
    bars: tuple[int, ...]


def describe(column: pl.Series) -> Overview:
    """The overview of `column`; NaN counts as missing, as in training."""
    values = present(column)
    missing = column.len() - values.len()
    values = innermost(values)
    facts: Shown = ()
    bars: tuple[int, ...] = ()
    if values.len() == 0:
        facts = (("values", "none"),)
    elif values.dtype.is_numeric():
        facts, bars = _describe_numbers(finite(values), values.len())
    elif values.dtype.is_temporal():
        facts = (("from", str(values.min())), ("to", str(values.max())))
    elif values.dtype in TEXTS:
        counts = values.alias("value").value_counts(name="count")
        facts = value_facts(counts, values.len())
    return Overview(column.name, shorten(column.dtype), missing, facts, bars)


def present(column: pl.Series) -> pl.Series:
    """The values of `column` that are not missing."""
    values = column.drop_nulls()
    return values.drop_nans() if values.dtype.is_float() else values


def innermost(values: pl.Series) -> pl.Series:
    """The numbers in arrays; other values as they are."""
    while isinstance(values.dtype, pl.Array | pl.List):
        values = values.explode().drop_nulls()
    return values


def inner_type(dtype: pl.DataType) -> pl.DataType:
    """The type of the numbers in arrays; of other values their own."""
    while isinstance(dtype, pl.Array | pl.List):
        inner = dtype.inner
        dtype = inner if isinstance(inner, pl.DataType) else inner()
    return dtype


def finite(column: pl.Series) -> Numbers:
    """The numbers of `column`, without gaps, NaN and infinity."""
    values = innermost(present(column))
    if values.dtype in (pl.Decimal, pl.Int128, pl.UInt128):
        values = values.cast(pl.Float64)
    array = values.to_numpy()
    return array[np.isfinite(array)] if values.dtype.is_float() else array


def are_whole(values: Numbers) -> bool:
    """Check whether no number has a fraction."""
    return bool((values == np.floor(values)).all())


def find_edges(
    low: float, high: float, *, is_whole: bool
) -> tuple[tuple[float, float], int] | None:
    """The ends and the number of bars of one width, at most 24, for values in between.

    None where there is only one value.
    """
    if high == low or not np.isfinite(high - low):
        return None
    edges, bins = (low, high), NUM_BINS
    # Few whole numbers get intervals of whole width: else some hold one more than others.
    if high - low < MAX_WHOLE_RANGE and is_whole:
        width = math.ceil((high - low + 1) / NUM_BINS)
        bins = math.ceil((high - low + 1) / width)
        edges = (low - 0.5, low - 0.5 + bins * width)
    if (np.diff(np.linspace(*edges, bins + 1)) <= 0).any():
        return None  # hash ids, mostly: float64 has no numbers between them
    return edges, bins


def count_bars(values: Numbers, edges: tuple[float, float], bins: int) -> Numbers:
    """Count the values in each bar."""
    return np.histogram(values, bins=bins, range=edges)[0]


def number_facts(ends: tuple[Any, Any, Any] | None, infinite: int) -> Shown:
    """Least value, mean and greatest of the finite numbers, None for none; how many are not."""
    facts = []
    if ends is not None:
        names = ("min", "mean", "max")
        facts = [(name, number(value)) for name, value in zip(names, ends, strict=True)]
    if infinite:
        facts.append(("infinite", number(infinite)))
    return tuple(facts)


def value_facts(counts: pl.DataFrame, total: int) -> Shown:
    """The most frequent values of `counts` (value, count), and their shares of `total`."""
    texts = counts.with_columns(pl.col("value").cast(pl.String))
    texts = texts.sort("count", "value", descending=[True, False])
    shown = texts.head(MAX_VALUES_SHOWN).rows()
    facts = [
        (shorten(value) if value.strip() else repr(value), share(count, total))
        for value, count in shown
    ]
    if counts.height > len(shown):
        rest = total - sum(count for _, count in shown)
        facts.append((f"{counts.height - len(shown):,} more", share(rest, total)))
    return tuple(facts)


def _describe_numbers(values: Numbers, total: int) -> tuple[Shown, tuple[int, ...]]:
    if not values.size:
        return number_facts(None, total), ()
    low, high = values.min(), values.max()
    with np.errstate(over="ignore"):
        mean = values.mean(dtype=np.float64)
    facts = number_facts((low.item(), mean.item(), high.item()), total - values.size)
    is_whole = float(high) - float(low) < MAX_WHOLE_RANGE and are_whole(values)
    found = find_edges(float(low), float(high), is_whole=is_whole)
    return facts, () if found is None else tuple(count_bars(values, *found).tolist())
