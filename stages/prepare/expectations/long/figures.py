"""Figures of whole columns, from their parts: what Great Expectations judges a long table by."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from stages.prepare.expectations.great import Engine
from stages.prepare.expectations.long.facts import Facts
from stages.prepare.expectations.long.look import COUNT, VALUE
from stages.prepare.expectations.long.pieces import pieces
from stages.prepare.expectations.long.ranks import values_at
from stages.prepare.expectations.long.repeats import Repeats, find_repeats, plain_rows
from stages.prepare.expectations.pandas_frame import to_pandas
from stages.prepare.expectations.suite import Rule
from stages.prepare.table.table import Table

_SUMS = {"column.mean", "column.sum", "column.standard_deviation"}
_ENDS = {"column.min", "column.max"}
_NUMBERS_OF_VALUES = {"column.distinct_values.count", "column.unique_proportion"}
_MODES = {"column.most_common_value"}
_SETS = {
    f"column.distinct_values.{what}{count}"
    for what in ("not_in_set", "missing_from_column")
    for count in ("", ".count")
}
_GAPS = {"column.non_null_proportion"}
_SHARES = {"column.value_counts", "column_values.nonnull.count"}
_QUANTILES = {"column.median", "column.quantile_values"}
_BETWEEN = ("linear", "lower", "higher", "midpoint", "nearest")
_KNOWN = _SUMS | _ENDS | _NUMBERS_OF_VALUES | _MODES | _SETS | _GAPS | _SHARES | _QUANTILES
_DIVERGENCE = "expect_column_kl_divergence_to_be_less_than"


def metrics_of(rule: Rule, expectation: Any) -> set[str]:
    """The metrics that a verdict needs of a column; none for a rule that is not about one."""
    if rule.type == _DIVERGENCE and "values" in (rule.arguments.get("partition_object") or {}):
        return set(_SHARES)
    return set(getattr(expectation, "metric_dependencies", ()))


def can_measure(metrics: Collection[str], dtype: pl.DataType) -> bool:
    """Check whether all of `metrics` of a column can be found from its parts."""
    if not metrics or set(metrics) - _KNOWN:
        return False
    is_number = dtype.is_numeric() and dtype not in (pl.Int128, pl.UInt128)
    if set(metrics) & _SUMS:
        return is_number
    if set(metrics) & _QUANTILES:
        return is_number and dtype != pl.UInt64
    if set(metrics) & _SHARES:
        return dtype == pl.String or dtype.is_integer()
    if set(metrics) & _ENDS:
        return is_number or dtype.is_temporal() or dtype == pl.String
    return not isinstance(dtype, pl.Categorical | pl.Enum)


@dataclass
class Figures:
    """Measures the columns of a table; what is found is kept for the next rule about them.

    A column of more values than are counted is taken whole where it is asked which they are.
    """

    table: Table
    facts: Mapping[str, Facts]
    gaps: Collection[str]
    _sums: dict[str, dict[str, float]] = field(default_factory=dict)
    _ends: dict[str, pl.DataFrame] = field(default_factory=dict)
    _repeats: dict[str, Repeats] = field(default_factory=dict)

    def take(self, needs: Mapping[str, Collection[str]]) -> None:
        """Look at the parts once for all rules; `needs` are the metrics of each column."""
        summed = {name for name, metrics in needs.items() if set(metrics) & _SUMS}
        ended = {name for name, metrics in needs.items() if set(metrics) & _ENDS}
        sums = {name: _Sums() for name in summed}
        ends: dict[str, list[pl.DataFrame]] = {name: [] for name in ended}
        for _, piece in pieces(self.table, summed | ended) if summed | ended else ():
            plain = plain_rows(piece)
            for name in summed:
                sums[name].add(plain[name].drop_nulls())
            for name in ended:
                values = plain[name]
                is_end = (values == values.min()) | (values == values.max())
                ends[name].append(plain.select(name).filter(is_end).unique())
        self._sums = {name: each.finish() for name, each in sums.items()}
        self._ends = {name: _or_gap(pl.concat(each)) for name, each in ends.items()}

    def measure(self, name: str, expectation: Any, metrics: Collection[str]) -> dict[str, Any]:
        """The metrics of a column, by their names. Raises MeasureError for what has none."""
        found: dict[str, Any] = {}
        wanted = set(metrics)
        if wanted & _SUMS:
            found |= {metric: self._sums[name][metric] for metric in wanted & _SUMS}
        if wanted & _ENDS:
            found |= Engine(self._ends[name], self.gaps).measure(expectation)
        if wanted & _GAPS:
            facts = self.facts[name]
            found |= dict.fromkeys(_GAPS, (facts.height - facts.missing) / facts.height)
        if wanted & _NUMBERS_OF_VALUES:
            found |= self._count(name)
        if wanted & _MODES:
            found |= Engine(self._modes(name), self.gaps).measure(expectation)
        if wanted & _SETS:
            found |= Engine(self._values(name), self.gaps).measure(expectation)
        if wanted & _SHARES:
            found |= self._shares(name, expectation)
        if wanted & _QUANTILES:
            found |= self._quantiles(name, expectation)
        return found

    def _quantiles(self, name: str, expectation: Any) -> dict[str, Any]:
        arguments = expectation.configuration.kwargs
        how = arguments.get("allow_relative_error") or "nearest"
        facts = self.facts[name]
        if facts.ends is None or facts.num_infinite or how not in _BETWEEN:
            return Engine(self.table.column(name).to_frame(), self.gaps).measure(expectation)
        if "quantile_ranges" not in arguments:
            return {"column.median": float(self.quantile(name, 0.5, "linear"))}
        shares = arguments["quantile_ranges"]["quantiles"]
        return {"column.quantile_values": [self.quantile(name, share, how) for share in shares]}

    def quantile(self, name: str, share: float, how: str) -> Any:
        """A quantile of a column of finite numbers, between values as pandas calls it."""
        facts = self.facts[name]
        assert facts.ends is not None
        place = (facts.height - facts.missing - 1) * share
        if how == "nearest":
            return values_at(self.table, name, [round(place)], *facts.ends)[0].item()
        below = int(place)
        ranks = sorted({below, math.ceil(place)})
        near = pl.Series(name, values_at(self.table, name, ranks, *facts.ends))
        between = to_pandas(near.to_frame())[name].quantile(place - below, interpolation=how)
        return between.item()

    def _shares(self, name: str, expectation: Any) -> dict[str, Any]:
        facts = self.facts[name]
        if facts.counts is None:
            return Engine(self.table.column(name).to_frame(), self.gaps).measure(expectation)
        import pandas as pd

        counts = facts.counts.sort(VALUE)
        values = to_pandas(counts.select(pl.col(VALUE)), self.gaps)[VALUE]
        index = pd.Index(values, name="value")
        return {
            "column.value_counts": pd.Series(counts[COUNT].to_numpy(), index, name="count"),
            "column_values.nonnull.count": facts.height - facts.missing,
        }

    def _count(self, name: str) -> dict[str, float]:
        facts = self.facts[name]
        counts = facts.counts
        num = self._repeated(name).num_different if counts is None else counts.height
        present = facts.height - facts.missing
        return {
            "column.distinct_values.count": num,
            "column.unique_proportion": num / present if present else 0,
        }

    def _modes(self, name: str) -> pl.DataFrame:
        counts = self.facts[name].counts
        if counts is None:
            return self.table.column(name).to_frame()
        modes = counts.filter(pl.col(COUNT) == pl.col(COUNT).max())
        return _or_gap(modes.select(pl.col(VALUE).alias(name)))

    def _values(self, name: str) -> pl.DataFrame:
        counts = self.facts[name].counts
        if counts is None:
            return self.table.column(name).unique().to_frame()
        return _or_gap(counts.select(pl.col(VALUE).alias(name)))

    def _repeated(self, name: str) -> Repeats:
        if name not in self._repeats:
            self._repeats[name] = find_repeats(self.table, [name])
        return self._repeats[name]


class _Sums:
    """Count, sum and squared distance from the mean, joined part by part."""

    def __init__(self) -> None:
        self._num, self._squares = 0, 0.0
        self._sum: float = 0

    def add(self, values: pl.Series) -> None:
        """Take in the numbers of a part, without gaps."""
        num = values.len()
        if not num:
            return
        numbers = values.cast(pl.Float64).to_numpy()
        # Whole numbers stay whole, however many there are.
        total: Any = values.cast(pl.Int128).sum() if values.dtype.is_integer() else numbers.sum()
        with np.errstate(invalid="ignore", over="ignore"):
            squares = float(np.square(numbers - total / num).sum())
            if self._num:
                apart = total / num - self._sum / self._num
                squares += apart * apart * self._num * num / (self._num + num)
        self._num += num
        self._sum += total
        self._squares += squares

    def finish(self) -> dict[str, float]:
        """The metrics by their names; NaN for what no number has."""
        num = self._num
        return {
            "column.sum": self._sum,
            "column.mean": self._sum / num if num else np.nan,
            "column.standard_deviation": np.sqrt(self._squares / (num - 1)) if num > 1 else np.nan,
        }


def _or_gap(values: pl.DataFrame) -> pl.DataFrame:
    """The values, or one gap where there are none."""
    return values if values.height else values.clear(1)
