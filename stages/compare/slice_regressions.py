"""The slices of the test rows on which a change made the model worse, beyond noise.

    python -m stages.compare.slice_regressions < sides.json

Prints JSON; `reprise report` starts it. `sides.json` is `{"metric": …, "columns": […] or null,
"before": {"predictions": …}, "after": {"predictions": …, "schema.json": …, "train": {…}, …}}`,
with the paths of files as `stages.compare.data_drift` has them.

The slices are those that evaluate cuts, of the rows that both sides have predicted. With many of
them some look worse by chance: Holm's correction (Scandinavian Journal of Statistics 6, 1979)
keeps the chance of one false alarm among all at 5 %, whatever they have in common.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.compare.compare import DIFFER, ROW, differ, keep_same_targets, mark, read_side
from stages.compare.revision_data import load_side
from stages.evaluate.measure.bootstrap import LEVEL, Interval, paired_differences
from stages.evaluate.measure.metrics import compute_metrics
from stages.evaluate.measure.predictions import (
    Predicted,
    class_names,
    codes_of,
    read_codes,
    read_predicted,
)
from stages.evaluate.measure.row_weights import read_weights, take_weights
from stages.evaluate.measure.weighted_metrics import Floats
from stages.evaluate.outputs.slices import SMALL_ROWS, cut
from stages.features.numbers import Rows

ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class SliceChange:
    """A slice with its metric before and after on the shared rows, and how likely by chance."""

    column: str
    label: str
    rows: int
    before: float
    after: float
    difference: Interval
    p: float


def compare_slices(
    name: str,
    task: str,
    parts: Iterable[tuple[str, str, Rows]],
    target: npt.NDArray[np.generic],
    before: Predicted,
    after: Predicted,
    weights: Floats | None = None,
) -> tuple[list[SliceChange], int]:
    """The slices that can be judged, and how many can't: too few rows, or no interval.

    `parts` are (column, label, rows); the others are those of `compute_metrics`. Rows of weight 0
    are none of a slice.
    """
    found, skipped = [], 0
    for column, label, all_rows in parts:
        rows = all_rows if weights is None else all_rows[weights[all_rows] > 0]
        if len(rows) < SMALL_ROWS:
            skipped += 1
            continue
        sides, counts = (target[rows], before[rows], after[rows]), take_weights(weights, rows)
        step = paired_differences([name], task, *sides, weights=counts)[name]
        if step.low is None:
            skipped += 1
            continue
        was, now = (
            compute_metrics([name], task, sides[0], side, counts)[name] for side in sides[1:]
        )
        p = _chance(name, step, *sides, weighted=counts is not None)
        found.append(SliceChange(column, label, len(rows), was, now, step, p))
    return found, skipped


def find_worse(name: str, slices: Sequence[SliceChange]) -> list[SliceChange]:
    """The slices that are worse by Holm's correction over all of them, the surest first.

    By p-value, the first must be below 5 % of all slices, the next of those left, and so on.
    """
    ordered = sorted(slices, key=lambda change: change.p)
    kept = []
    for place, change in enumerate(ordered):
        if change.p * (len(ordered) - place) > ALPHA:
            break
        kept.append(change)
    return [change for change in kept if mark(name, change.difference) == "worse"]


def _chance(
    name: str,
    step: Interval,
    target: npt.NDArray[np.generic],
    before: Predicted,
    after: Predicted,
    *,
    weighted: bool,
) -> float:
    """The two-sided p-value of no difference.

    Of accuracy McNemar's exact test, which has no weights of rows. Of others Student's t with the
    standard error that the bootstrap's interval has, since its resamples don't reach as far out as
    a corrected level.
    """
    from scipy.stats import binomtest, t

    if name == "accuracy" and not weighted:
        right = [codes_of(side) == target for side in (before, after)]
        fixed, broken = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
        return float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
    assert step.low is not None
    assert step.high is not None
    error = (step.high - step.low) / (2 * NormalDist().inv_cdf((1 + LEVEL) / 2))
    if error == 0:
        return 1.0 if step.value == 0 else 0.0
    return float(2 * t.sf(abs(step.value) / error, len(target) - 1))


def report_slices(files: dict[str, Any]) -> dict[str, Any]:
    """The result to print: how many slices were looked at, and those that are worse."""
    side = load_side(files["after"])
    name, task = files["metric"], side.schema.target.task
    parts = cut(files["columns"], side.schema, side.statistics, side.train, side.splits["test"])
    both_sides = (pl.read_parquet(files[each]["predictions"]) for each in ("before", "after"))
    (was, _), (now, _) = (read_side(table) for table in both_sides)
    if differ(was, now):
        return {"metric": name, "why_not": DIFFER}
    key = now.columns[0]
    places = pl.DataFrame({key: np.array(side.splits["test"]["key"])}).with_row_index(ROW)
    both = keep_same_targets(now.join(was, on=key, suffix=" before"))
    both = both.join(places, on=key).sort(ROW)
    numbers = np.full(places.height, -1)
    numbers[both[ROW].to_numpy()] = np.arange(both.height)
    shared = [(column, label, numbers[rows]) for column, label, rows in parts]
    shared = [(column, label, rows[rows >= 0]) for column, label, rows in shared]
    weights = take_weights(read_weights(side.splits["test"]), both[ROW].to_numpy())
    compared = _compared(both, now.columns)
    found, skipped = compare_slices(name, task, shared, *compared, weights)
    return {
        "metric": name,
        "why_not": None,
        "looked_at": len(found),
        "skipped": skipped,
        "worse": [asdict(change) for change in find_worse(name, found)],
    }


def _compared(
    both: pl.DataFrame, columns: Sequence[str]
) -> tuple[npt.NDArray[np.generic], Predicted, Predicted]:
    """Target (class codes or values), and what both sides predict."""
    now = both.select(columns)
    was = both.select(pl.col(f"{name} before").alias(name) for name in columns[1:])
    classes = class_names(now)
    target = read_codes(now["target"], classes) if classes else now["target"].to_numpy()
    return target, read_predicted(was), read_predicted(now)


def main() -> None:
    """Compare the sides that standard input names."""
    print(json.dumps(report_slices(json.load(sys.stdin)), ensure_ascii=False))


if __name__ == "__main__":
    main()
