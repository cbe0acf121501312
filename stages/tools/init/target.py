"""The column of `--target`: the reason for its task, and what to know of its values."""

import numpy as np
import polars as pl

from stages.features.columns import as_numeric
from stages.features.schema import Target
from stages.features.target_scale import has_long_tail
from stages.tools.init.counts import MAX_DISTINCT, Counts
from stages.tools.init.options import Options


def say_tail(column: pl.Series, target: Target) -> list[str]:
    """A note on values of which a logarithm may be learned; nothing of others."""
    if target.classes is not None:
        return []
    values = as_numeric(column, "prepare.target").drop_nulls().to_numpy()
    if not has_long_tail(values):
        return []
    mean, median = float(values.mean()), float(np.median(values))
    return [
        f"note: '{target.name}' has a long tail (mean {mean:.6g}, median {median:.6g}): where an "
        "error of 10% counts the same at every size, set prepare.target_transform: log1p; "
        "'reprise advise' measures what it brings"
    ]


def why_task(column: pl.Series, target: Target, options: Options, counts: Counts) -> str:
    """The reason for the task."""
    if options.task is not None:
        return "--task"
    if target.classes is not None:
        what = "texts" if column.dtype == pl.String else f"{column.dtype}".lower()
        return f"{len(target.classes)} different values ({what})"
    distinct = counts.distinct[target.name]
    number = f"more than {MAX_DISTINCT:,}" if distinct is None else f"{distinct:,}"
    return f"{number} different numbers"
