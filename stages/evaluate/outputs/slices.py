"""Where the model is worse than its average: the test rows by the values of each column.

Categories and booleans are slices as they are. Numbers are cut at the quartiles of the train
rows, so that the slices of two models on the same data are the same.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.common.errors import Problem, UserError, wrong_name
from stages.common.files import rounded, write_csv
from stages.evaluate.measure.bootstrap import Interval, interval_of, resample
from stages.evaluate.measure.metrics import LESS_IS_BETTER, compute_metrics
from stages.evaluate.measure.predictions import Predicted, values_of
from stages.evaluate.measure.weighted_metrics import Floats, weighted_metric
from stages.evaluate.outputs.residuals import mean_residual
from stages.features.schema import Array, Feature, Schema, Statistics

Rows = npt.NDArray[np.int64]
# Of fewer rows a slice is marked as small, and is not the worst.
SMALL_ROWS = 30
MAX_CATEGORIES = 20
QUARTILES = (0.25, 0.5, 0.75)
# Enough train rows for quartiles.
MAX_TRAIN_ROWS = 100_000
# Fewer than for all rows: there are many slices.
RESAMPLES = 300
MISSING, NONE_OF_THESE, OTHERS = "(missing)", "(missing or new)", "(others)"


@dataclass(frozen=True)
class Slice:
    """Test rows that have something in common: what, and the metric on them with its interval.

    The value is NaN where the rows don't define the metric. `residual` is the mean of actual
    less predicted, of values, with its interval.
    """

    column: str
    label: str
    rows: int
    metric: Interval
    residual: Interval | None = None

    @property
    def small(self) -> bool:
        """Whether it has too few rows to be judged."""
        return self.rows < SMALL_ROWS


def measure_slices(
    name: str,
    schema: Schema,
    parts: Iterable[tuple[str, str, Rows]],
    target: Array,
    scored: Predicted,
) -> list[Slice]:
    """The metric `name` on each of `parts`, (column, label, rows); see `compute_metrics`."""
    task = schema.target.task
    found = []
    for column, label, rows in parts:
        actual, predicted = target[rows], scored[rows]
        function = weighted_metric(name, task, actual, predicted)
        if function is None:
            interval = Interval(compute_metrics([name], task, actual, predicted)[name])
        else:
            value = rounded(float(function(np.ones((1, len(rows)), np.uint8))[0]))
            drawn = resample({name: function}, len(rows), RESAMPLES)[name]
            interval = interval_of(name, value, len(rows), drawn)
        residual = None
        if task == "regression":
            residual = mean_residual(actual.astype(np.float64) - values_of(predicted))
        found.append(Slice(column, label, len(rows), interval, residual))
    return found


def write_slices(path: Path, name: str, slices: Sequence[Slice]) -> None:
    """A line for each slice; `name` is the metric's. What is not known is empty."""
    residual = ("residual", "residual_low", "residual_high")
    columns = ["column", "slice", "rows", "small", name, "low", "high", *residual]
    lines: list[tuple[object, ...]] = []
    for s in slices:
        value = s.metric.value if np.isfinite(s.metric.value) else None
        small = "yes" if s.small else "no"
        r = s.residual
        ends = (None, None, None) if r is None else (r.value, r.low, r.high)
        lines.append((s.column, s.label, s.rows, small, value, s.metric.low, s.metric.high, *ends))
    write_csv(path, columns, lines)


def find_worst(name: str, slices: Sequence[Slice]) -> Slice | None:
    """The first of `worst_first`, if there is one."""
    return next(iter(worst_first(name, slices)), None)


def worst_first(name: str, slices: Sequence[Slice]) -> list[Slice]:
    """The slices by the better end of their intervals, the worst first, small ones apart.

    By the values alone those with the fewest rows would come first. Those without an interval
    count where there are no others, as with `max_error`.
    """
    judged = [s for s in slices if not s.small and np.isfinite(s.metric.value)]
    less = name in LESS_IS_BETTER

    def at_best(s: Slice) -> float:
        end = s.metric.low if less else s.metric.high
        value = s.metric.value if end is None else end
        return value if less else -value

    known = [s for s in judged if s.metric.low is not None]
    return sorted(known or judged, key=at_best, reverse=True)


def cut(
    columns: Sequence[str] | None,
    schema: Schema,
    statistics: Statistics,
    train: Mapping[str, Array],
    test: Mapping[str, Array],
) -> Iterator[tuple[str, str, Rows]]:
    """The slices by `columns` (None: by all that can be), as column, label and test rows.

    A column of which all test rows have the same value has none. Raises UserError for a name that
    is no column, or that of images.
    """
    known = {feature.name: feature for feature in schema.features if feature.kind != "image"}
    chosen = list(known) if columns is None else list(columns)
    _check(chosen, known, schema)
    # By name: to look for each among all would take the square of their number.
    places = {
        feature.name: place
        for kind in schema.inputs()
        for place, feature in enumerate(schema.of_kind(kind))  # type: ignore[arg-type]
    }
    for name in chosen:
        labels, codes = _codes(known[name], places[name], schema, statistics, train, test)
        present = [code for code in range(len(labels)) if (codes == code).any()]
        if len(present) > 1:
            for code in present:
                yield name, labels[code], np.flatnonzero(codes == code)


def _check(chosen: Sequence[str], known: Mapping[str, Feature], schema: Schema) -> None:
    images = [feature.name for feature in schema.of_kind("image")]
    problems = []
    for index, name in enumerate(chosen):
        key = f"evaluate.slices.{index}"
        if name in images:
            problems.append(
                Problem(f"the column '{name}' holds images: no slices by it", key, name)
            )
        elif name not in known:
            message = f"there is no column '{name}' that the model was trained on"
            problems.append(wrong_name(message, name, known, key))
    if problems:
        raise UserError(*problems)


def _codes(
    feature: Feature,
    place: int,
    schema: Schema,
    statistics: Statistics,
    train: Mapping[str, Array],
    test: Mapping[str, Array],
) -> tuple[list[str], Rows]:
    """The labels of a column's slices, and for each test row the number of its own."""
    if feature.kind == "categorical":
        return _frequent(feature.categories or [], np.array(test["categorical"][:, place]))
    gaps = _gaps(feature, schema, test)
    if feature.kind == "boolean":
        labels, codes = ["false", "true"], np.array(test["boolean"][:, place]).astype(np.int64)
    else:
        step = -(-len(train["numeric"]) // MAX_TRAIN_ROWS)
        known = ~_gaps(feature, schema, train)[::step]
        seen = train["numeric"][::step, place].astype(np.float64)[known]
        moments = statistics.numeric[feature.name]
        values = test["numeric"][:, place].astype(np.float64)
        labels, codes = _quartiles(seen, values, moments.mean, moments.deviation)
    return [*labels, MISSING], np.where(gaps, len(labels), codes)


def _gaps(feature: Feature, schema: Schema, arrays: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """Where the column is empty: encode puts a column of zeros and ones behind the values."""
    array = arrays[feature.kind]
    if not feature.missing:
        return np.zeros(len(array), dtype=np.bool_)
    features = schema.of_kind(feature.kind)
    with_gaps = [other for other in features if other.missing]
    return array[:, len(features) + with_gaps.index(feature)].astype(np.bool_)


def _frequent(categories: Sequence[str], codes: Rows) -> tuple[list[str], Rows]:
    """The categories that most test rows have, the others together."""
    counts = np.bincount(codes, minlength=len(categories) + 1)
    kept = np.argsort(-counts[1:], kind="stable")[:MAX_CATEGORIES] + 1
    numbers = np.full(len(counts), len(kept))
    numbers[kept] = np.arange(len(kept))
    numbers[0] = len(kept) + 1
    return [*(categories[code - 1] for code in kept), OTHERS, NONE_OF_THESE], numbers[codes]


def _quartiles(
    seen: Floats, values: Floats, mean: float, deviation: float
) -> tuple[list[str], Rows]:
    """Labels in the column's units; a value on an edge is in the slice below it."""
    different = np.unique(seen)
    if len(different) <= len(QUARTILES) + 1:
        # A number that takes few values: the middles between them are the edges.
        edges = (different[1:] + different[:-1]) / 2
        named = [_in_units(value, mean, deviation) for value in different]
        return named, np.searchsorted(edges, values)
    edges = np.unique(np.quantile(seen, QUARTILES, method="lower"))
    marks = [_in_units(edge, mean, deviation) for edge in edges]
    between = [f"{low} to {high}" for low, high in pairwise(marks)]
    return [f"up to {marks[0]}", *between, f"above {marks[-1]}"], np.searchsorted(edges, values)


def _in_units(scaled: float, mean: float, deviation: float) -> str:
    """A standardised value as it was, to a thousandth of the deviation: 0 for what float32 left."""
    digits = 3 - math.floor(math.log10(deviation))
    return f"{round(scaled * deviation + mean, digits) + 0.0:.6g}"
