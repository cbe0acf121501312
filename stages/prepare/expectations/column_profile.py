"""Each column at a glance: type, gaps, range or most frequent values, a small histogram."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from stages.common.errors import shorten
from stages.prepare.expectations.result import number, share

Facts = tuple[tuple[str, str], ...]
NUM_BINS = 24
MAX_VALUES_SHOWN = 4


@dataclass(frozen=True)
class Overview:
    """One column. `bars` are counts, from the smallest value to the largest."""

    name: str
    dtype: str
    missing: int
    facts: Facts
    bars: tuple[int, ...]


def describe(column: pl.Series) -> Overview:
    """The overview of `column`; NaN counts as missing, as in training."""
    values = column.drop_nulls()
    if values.dtype.is_float():
        values = values.drop_nans()
    missing = column.len() - values.len()
    while isinstance(values.dtype, pl.Array | pl.List):
        values = values.explode().drop_nulls()
    facts: Facts = ()
    bars: tuple[int, ...] = ()
    if values.len() == 0:
        facts = (("values", "none"),)
    elif values.dtype.is_numeric():
        facts, bars = _describe_numbers(values)
    elif values.dtype.is_temporal():
        facts = (("from", str(values.min())), ("to", str(values.max())))
    elif values.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
        facts = _describe_values(values.cast(pl.String))
    return Overview(column.name, shorten(column.dtype), missing, facts, bars)


def _describe_numbers(values: pl.Series) -> tuple[Facts, tuple[int, ...]]:
    if values.dtype in (pl.Decimal, pl.Int128, pl.UInt128):
        values = values.cast(pl.Float64)
    array = values.to_numpy()
    finite = array[np.isfinite(array)] if values.dtype.is_float() else array
    facts = []
    if finite.size:
        with np.errstate(over="ignore"):
            mean = finite.mean(dtype=np.float64)
        ends = ("min", finite.min()), ("mean", mean), ("max", finite.max())
        facts = [(name, number(value.item())) for name, value in ends]
    if finite.size < array.size:
        facts.append(("infinite", number(array.size - finite.size)))
    return tuple(facts), _count_bars(finite)


def _count_bars(values: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """Count the values in each of at most 24 intervals.

    Nothing where there is only one.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if high == low or not np.isfinite(high - low):
        return ()
    edges, bins = (low, high), NUM_BINS
    # Few whole numbers get intervals of whole width: else some hold one more than others.
    if high - low < 10 * NUM_BINS and (values == np.floor(values)).all():
        width = math.ceil((high - low + 1) / NUM_BINS)
        bins = math.ceil((high - low + 1) / width)
        edges = (low - 0.5, low - 0.5 + bins * width)
    if (np.diff(np.linspace(*edges, bins + 1)) <= 0).any():
        return ()  # hash ids, mostly: float64 has no numbers between them
    return tuple(np.histogram(values, bins=bins, range=edges)[0].tolist())


def _describe_values(values: pl.Series) -> Facts:
    counts = values.value_counts().sort("count", values.name, descending=[True, False])
    shown = counts.head(MAX_VALUES_SHOWN).rows()
    facts = [
        (shorten(value) if value.strip() else repr(value), share(count, values.len()))
        for value, count in shown
    ]
    if counts.height > len(shown):
        rest = values.len() - sum(count for _, count in shown)
        facts.append((f"{counts.height - len(shown):,} more", share(rest, values.len())))
    return tuple(facts)
