"""Slices on which the model is worse than its average: the test rows by the values of each column.

The kind of a column says how its rows are divided: by what the train rows say of it, so that the
slices of two models on the same data are the same.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.common.errors import Problem, UserError, wrong_name
from stages.common.files import rounded, write_csv
from stages.evaluate.measure.bootstrap import Interval, interval_of, resample
from stages.evaluate.measure.metrics import compute_metrics, less_is_better
from stages.evaluate.measure.predictions import Predicted, values_of
from stages.evaluate.measure.row_weights import count_equal, take_weights
from stages.evaluate.measure.weighted_metrics import Floats, weighted_metric
from stages.evaluate.outputs.residuals import mean_residual
from stages.evaluate.params import check_calendars
from stages.features.kind import kind_of
from stages.features.numbers import Rows, take_column
from stages.features.schema import Array, Feature, Schema, Statistics

# Of fewer rows a slice is marked as small, and is not the worst.
SMALL_ROWS = 30
# Fewer than for all rows: there are many slices.
RESAMPLES = 300


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
        """Check whether it has too few rows to be judged."""
        return self.rows < SMALL_ROWS


def measure_slices(
    name: str,
    schema: Schema,
    parts: Iterable[tuple[str, str, Rows]],
    target: Array,
    scored: Predicted,
    weights: Floats | None = None,
) -> list[Slice]:
    """The metric `name` on each of `parts`, (column, label, rows); see `compute_metrics`.

    Rows of weight 0 are none of a slice.
    """
    task = schema.target.task
    found = []
    for column, label, all_rows in parts:
        rows = all_rows if weights is None else all_rows[weights[all_rows] > 0]
        if not len(rows):
            continue
        actual, predicted, counts = target[rows], scored[rows], take_weights(weights, rows)
        function = weighted_metric(name, task, actual, predicted, counts)
        if function is None:
            interval = Interval(compute_metrics([name], task, actual, predicted, counts)[name])
        else:
            value = rounded(float(function(np.ones((1, len(rows)), np.uint8))[0]))
            drawn = resample({name: function}, len(rows), RESAMPLES)[name]
            interval = interval_of(name, value, count_equal(len(rows), counts), drawn)
        residual = None
        if task == "regression":
            residual = mean_residual(actual.astype(np.float64) - values_of(predicted), counts)
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
    less = less_is_better(name)

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
    is no column, that of images or a calendar.
    """
    known = {feature.name: feature for feature in schema.features if not feature.is_array}
    if columns is not None:
        _check(columns, known, schema)
    chosen = known if columns is None else columns
    places = schema.places()
    for name in chosen:
        feature = known[name]
        train_column, test_column = (
            take_column(feature, places[name], arrays) for arrays in (train, test)
        )
        moments = statistics.of(feature)
        sliced = kind_of(feature.kind).slices(feature, train_column, test_column, moments)
        if sliced is None:
            continue
        labels, codes = sliced
        present = [code for code in range(len(labels)) if (codes == code).any()]
        if len(present) > 1:
            for code in present:
                yield name, labels[code], np.flatnonzero(codes == code)


def _check(chosen: Sequence[str], known: Mapping[str, Feature], schema: Schema) -> None:
    images = [feature.name for feature in schema.features if feature.is_array]
    problems = check_calendars(chosen, [f.name for f in known.values() if f.calendar])
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
