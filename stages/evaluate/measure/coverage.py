"""The share of test rows whose target lies in the interval or the set that was said."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.files import rounded
from stages.evaluate.measure.bootstrap import wilson
from stages.evaluate.measure.row_weights import count_equal
from stages.evaluate.measure.weighted_metrics import Floats
from stages.evaluate.params import OF_COVERAGE
from stages.features.schema import Class

COVERAGE, WIDTH, SIZE = OF_COVERAGE


def measure_coverage(
    table: pl.DataFrame,
    target: npt.NDArray[np.generic],
    classes: Sequence[Class] | None,
    weights: Floats | None = None,
) -> dict[str, float]:
    """The share of rows whose target is inside, with Wilson's interval, and the mean size.

    `table` is what `Predictor.decode` gives with an interval: the size is the width of an interval,
    or the number of classes in a set. `target` (rows,) are class codes or values, `weights` (rows,)
    say how much a row counts.
    """
    if classes is None:
        low, high = (table[name].to_numpy() for name in ("low", "high"))
        inside = (low <= target) & (target <= high)
        name, sizes = WIDTH, high - low
    else:
        sets = table.select(f"in_set_{each}" for each in classes).to_numpy()
        inside = sets[np.arange(len(sets)), target.astype(np.int64)]
        name, sizes = SIZE, sets.sum(axis=1)
    share = float(np.average(inside, weights=weights))
    low_end, high_end = wilson(share, count_equal(len(inside), weights))
    return {
        COVERAGE: rounded(share),
        f"{COVERAGE}_low": low_end,
        f"{COVERAGE}_high": high_end,
        name: rounded(float(np.average(sizes, weights=weights))),
    }
