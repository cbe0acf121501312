"""Slices of the rows on which the recipe is surely worse than on all: where to look for more data.

No training says what more rows of a slice would bring, so none of this is a gain. The predictions
are those of trainings that have not seen the row. The worst of many slices looks bad by chance:
Holm's correction (Scandinavian Journal of Statistics 6, 1979) keeps the chance of one false name
among all below 2.5 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from stages.evaluate.measure.bootstrap import LEVEL
from stages.evaluate.outputs.slices import Slice, cut, measure_slices
from stages.features.numbers import Rows
from stages.features.schema import read_statistics
from stages.tools.advise.measure.arms import INCUMBENT
from stages.tools.advise.measure.judge import Floats, Metric
from stages.tools.advise.measure.rows import Pool
from stages.tools.advise.measure.study import At, Study
from stages.training.params import CalibrationParams
from stages.training.recipe import PREPARED

# Of more rows as many are looked at as stand evenly among them.
MAX_ROWS = 20_000
MAX_SHOWN = 5
ALPHA = (1 - LEVEL) / 2
REACH = NormalDist().inv_cdf(0.5 + LEVEL / 2)


@dataclass(frozen=True)
class WeakSlice:
    """Rows of a value of a column, on which the metric is `value`, between `low` and `high`.

    `whole` is the metric on all rows.
    """

    column: str
    label: str
    rows: int
    value: float
    low: float
    high: float
    whole: float


def weak_slices(study: Study, at: At, columns: Sequence[str] | None) -> list[WeakSlice]:
    """The slices by `columns`, as `evaluate.slices` has them, that are surely worse than all rows.

    Raises UserError where one of them is no column that can be sliced by.
    """
    found = study.out_of_fold(at)
    if found is None:
        return []
    rows, scores = found
    # Rows in order of time are judged by all trainings.
    rows, first = np.unique(rows, return_index=True)
    calibration = study.incumbent.recipe(INCUMBENT.overrides)[0].calibration
    return find_weak(study.pool, study.metric, (rows, scores[first]), calibration, columns)


def find_weak(
    pool: Pool,
    metric: Metric,
    judged: tuple[Rows, Floats],
    calibration: CalibrationParams,
    columns: Sequence[str] | None,
) -> list[WeakSlice]:
    """The same of `judged`, the rows and their scores (rows, outputs)."""
    step = -(-len(judged[0]) // MAX_ROWS)
    rows, scores = judged[0][::step], judged[1][::step]
    whole = metric.measure(pool, rows, scores, calibration)
    if not np.isfinite(whole):
        return []
    target, predicted = pool.target(rows), metric.predict(pool, rows, scores, calibration)
    schema, weights = pool.schema, pool.weights(rows)
    # No slice looks at images, which are most of what there is to copy.
    arrays = {feature.kind for feature in schema.features if feature.is_array}
    batch = {kind: values for kind, values in pool.rows.batch.items() if kind not in arrays}
    every = {kind: values.cpu().numpy() for kind, values in batch.items()}
    own = {kind: values[rows] for kind, values in every.items()}
    parts = list(cut(columns, schema, read_statistics(PREPARED), every, own))
    slices = measure_slices(metric.name, schema, parts, target, predicted, weights)
    weak = [
        WeakSlice(s.column, s.label, s.rows, s.metric.value, s.metric.low, s.metric.high, whole)
        for s in keep_sure(slices, whole, metric.sign)
        if s.metric.low is not None and s.metric.high is not None
    ]
    return weak[:MAX_SHOWN]


def keep_sure(slices: Sequence[Slice], whole: float, sign: int) -> list[Slice]:
    """The slices that are surely worse than `whole`, the surest first; those of few rows are none.

    `sign` is 1 where more of the metric is better, else -1.
    """
    known = [(chance, s) for s in slices if (chance := _chance(s, whole, sign)) is not None]
    known.sort(key=lambda each: each[0])
    kept = []
    for number, (chance, each) in enumerate(known):
        if chance > ALPHA / (len(known) - number):
            break
        kept.append(each)
    return kept


def _chance(found: Slice, whole: float, sign: int) -> float | None:
    """The chance of such a slice where it is as good as all rows.

    By the end of its interval that is better. None where it can't be judged.
    """
    end = found.metric.high if sign > 0 else found.metric.low
    if found.small or end is None or not np.isfinite(found.metric.value):
        return None
    error = abs(end - found.metric.value) / REACH
    distance = sign * (whole - found.metric.value)
    if error == 0:
        return None
    return 1 - NormalDist().cdf(distance / error)
