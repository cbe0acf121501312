"""Two predictions of the same rows, compared: better, worse, or noise.

    python -m stages.compare.compare BEFORE.parquet AFTER.parquet METRIC…
        [--replicas-before FILE…] [--replicas-after FILE…] [--renumbered]

Prints JSON; `reprise report` starts it. Both files are `predictions.parquet` of the stage
evaluate, of two revisions. Rows are joined by their key. Two statements are kept apart: 'this
model on these rows' is about these two trained models on rows like these, not about the luck of
training them; 'this change' is about both, and needs three replicas or more of each side, whose
files are `replicas/<k>.parquet` of the same stage. Where rows have weights, those of after count on
both sides.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from stages.compare.mean_difference import MIN_REPLICAS, MeanDifference, find_mean_differences
from stages.evaluate.measure.bootstrap import Interval, paired_differences
from stages.evaluate.measure.metrics import compute_metrics, less_is_better
from stages.evaluate.measure.predictions import (
    class_names,
    part_weight,
    read_codes,
    read_predicted,
    rename_truths,
    without_intervals,
)
from stages.evaluate.measure.row_weights import scale
from stages.evaluate.measure.weighted_metrics import Floats

# With fewer of them shared, the two test splits are different ones.
MIN_SHARED = 0.5
NUM_EXAMPLES = 20
# Of the deviation, and of a value's distance from the mean. A target of values has been through
# float32, standardised by the train rows: its last digits depend on these and on the transform.
TOLERANCE = 1e-5
RENUMBERED = (
    "rows without a key are known by their number alone, and the source differs: 'prepare.key' "
    "names a column that says which row is which"
)
DIFFER = "the key, the target or its classes differ"
# What the join knows a row of either side by.
ROW = "number of the row"


def compare(
    before: pl.DataFrame,
    after: pl.DataFrame,
    names: list[str],
    replicas: tuple[Sequence[pl.DataFrame], Sequence[pl.DataFrame]] = ((), ()),
    *,
    renumbered: bool = False,
) -> dict[str, Any]:
    """The effect of `after` on each metric of `names`, and the rows that it concerns.

    The tables have the row key first, then `target`, `prediction` and, for classes, the
    probability of each. `why_not` says why they can't be compared row by row, else it is None.
    `replicas` of before and of after are tables with the rows of `before` and of `after`; from
    three of each on, a metric has its 'change'. `renumbered`: the key is a row's number, and the
    sides number other rows.
    """
    (before, _), (after, weights) = (read_side(table) for table in (before, after))
    key = after.columns[0]
    counts = {"before": before.height, "after": after.height}
    if differ(before, after):
        return {"rows": counts, "why_not": DIFFER}
    if renumbered:
        return {"rows": counts, "why_not": RENUMBERED}
    before, after = (side.with_row_index(ROW) for side in (before, after))
    both = after.join(before, on=key, how="inner", suffix=" before", maintain_order="left")
    same = keep_same_targets(both)
    counts |= {"shared": both.height, "relabelled": both.height - same.height}
    if same.height < MIN_SHARED * max(before.height, after.height):
        return {"rows": counts, "why_not": "splits differ: fewer than half of the rows are shared"}
    if weights is not None:
        weights = weights[same[ROW].to_numpy()]
        if not weights.any():
            return {"rows": counts, "why_not": "the rows that both sides have all weigh 0"}
        weights = scale(weights)
    columns = after.columns[2:]
    old = same.select(pl.col(f"{name} before").alias(name) for name in columns)
    new = same.select(columns)
    classes = class_names(new)
    # One that was trained once has no folder of replicas, or one of its own.
    num_replicas = (*(max(1, len(side)) for side in replicas), MIN_REPLICAS)
    task = "classification" if classes else "regression"
    target = read_codes(new["target"], classes) if classes else new["target"].to_numpy()
    was, now = read_predicted(old), read_predicted(new)
    changes: dict[str, MeanDifference] = {}
    if min(map(len, replicas)) >= MIN_REPLICAS:
        rows = (same[f"{ROW} before"], same[ROW])
        sides = [
            [read_predicted(rename_truths(table[at])) for table in tables]
            for tables, at in zip(replicas, rows, strict=True)
        ]
        changes = find_mean_differences(names, task, target, sides[0], sides[1], weights=weights)
    differences = paired_differences(names, task, target, was, now, weights=weights)
    values = [compute_metrics(names, task, target, side, weights) for side in (was, now)]
    found: dict[str, Any] = {
        "rows": counts,
        "why_not": None,
        "replicas": dict(zip(("before", "after", "needed"), num_replicas, strict=True)),
        "metrics": {
            name: {
                "before": values[0][name],
                "after": values[1][name],
                **asdict(differences[name]),
                "mark": mark(name, differences[name]),
                "less_is_better": less_is_better(name),
                "change": _described(name, changes.get(name)),
            }
            for name in names
        },
    }
    if classes:
        found["flips"] = find_flips(same, key)
    return found


def read_side(table: pl.DataFrame) -> tuple[pl.DataFrame, Floats | None]:
    """Rows of `predictions.parquet` with what all revisions have alone, and their weights."""
    return part_weight(without_intervals(rename_truths(table)))


def keep_same_targets(both: pl.DataFrame) -> pl.DataFrame:
    """The rows whose `target` is `target before`, of values within what float32 resolves."""
    now, before = pl.col("target"), pl.col("target before")
    same = now.eq_missing(before)
    if both["target"].dtype.is_float():
        scale = now.std(ddof=0) + (now - now.mean()).abs()
        same |= (now - before).abs() <= TOLERANCE * scale
    return both.filter(same)


def differ(before: pl.DataFrame, after: pl.DataFrame) -> bool:
    """Check whether keys, targets or classes have other names or types, so that they can't join."""
    return list(before.schema.items()) != list(after.schema.items())


def _described(name: str, change: MeanDifference | None) -> dict[str, Any] | None:
    return None if change is None else {**asdict(change), "mark": mark(name, change)}


def mark(name: str, difference: Interval | MeanDifference) -> str:
    """'better' or 'worse' where the interval leaves 0 out, 'noise' where not, '' without one."""
    if difference.low is None or difference.high is None:
        return ""
    if difference.low <= 0 <= difference.high:
        return "noise"
    return "better" if (difference.value > 0) != less_is_better(name) else "worse"


def find_flips(same: pl.DataFrame, key: str) -> dict[str, Any]:
    """The rows whose prediction became right or wrong, and McNemar's exact test of their numbers.

    Under the null hypothesis that both models are equally often right, a row that only one of
    them gets right is the one's or the other's with equal chance (McNemar, Psychometrika 12,
    1947; the exact form is a binomial test).
    """
    from scipy.stats import binomtest

    right = pl.col("prediction") == pl.col("target")
    was_right = pl.col("prediction before") == pl.col("target")
    fixed, broken = same.filter(right & ~was_right), same.filter(~right & was_right)
    moved = fixed.height + broken.height
    shown = [key, "target", "prediction before", "prediction"]
    return {
        "fixed": fixed.height,
        "broken": broken.height,
        "mcnemar_p": float(binomtest(fixed.height, moved).pvalue) if moved else 1.0,
        "examples": {
            name: rows.sort(key).head(NUM_EXAMPLES).select(pl.col(shown).cast(pl.String)).rows()
            for name, rows in (("fixed", fixed), ("broken", broken))
        },
    }


def main() -> None:
    """Compare the files that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("metrics", nargs="+")
    for side in ("before", "after"):
        parser.add_argument(f"--replicas-{side}", nargs="*", type=Path, default=[])
    parser.add_argument("--renumbered", action="store_true")
    options = parser.parse_args()
    before, after = pl.read_parquet(options.before), pl.read_parquet(options.after)
    old = [pl.read_parquet(file) for file in options.replicas_before]
    new = [pl.read_parquet(file) for file in options.replicas_after]
    found = compare(before, after, options.metrics, (old, new), renumbered=options.renumbered)
    print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
