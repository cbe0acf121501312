"""The share of test rows whose target lies in the interval or the set that was said."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.files import rounded
from stages.common.yamlfile import yaml_text
from stages.evaluate.measure.bootstrap import Interval, wilson
from stages.evaluate.measure.row_weights import count_equal
from stages.evaluate.measure.weighted_metrics import Floats
from stages.evaluate.params import COVERAGE, SIZE, WIDTH
from stages.features.schema import Class

# Of one in a thousand projects as much is luck.
MAX_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Covered:
    """The share of rows whose target is inside, and the mean size.

    That is the width of an interval (`interval_width`), or the classes in a set (`set_size`).
    """

    share: Interval
    name: str
    size: float

    def metrics(self) -> dict[str, float]:
        """Both by their names."""
        return {COVERAGE: self.share.value, self.name: self.size}


def ask_at_coverage(
    covered: Covered, asked: float, num_test: float, num_validation: int
) -> str | None:
    """The question where fewer rows are covered than luck explains; else None.

    `asked` is the share that was asked for. The luck is that of the test rows, and of those that
    validate, by which intervals and sets were made as wide as they are.
    """
    variance = asked * (1 - asked) * (1 / num_test + 1 / num_validation)
    if covered.share.value >= asked - MAX_DEVIATIONS * math.sqrt(variance):
        return None
    return (
        f"{COVERAGE} {covered.share.value:.4g} on the test rows, of which {asked:.4g} was asked "
        "(evaluate.coverage): are they unlike the rows that validate, such as later ones?"
    )


def measure_coverage(
    table: pl.DataFrame,
    target: npt.NDArray[np.generic],
    classes: Sequence[Class] | None,
    weights: Floats | None = None,
) -> Covered:
    """The share of targets inside, with Wilson's interval, and the mean size.

    `table` is what `Predictor.decode` gives with an interval or a set; `target` (rows,) are class
    codes or values, `weights` (rows,) say how much a row counts.
    """
    if classes is None:
        low, high = (table[name].to_numpy() for name in ("low", "high"))
        inside = (low <= target) & (target <= high)
        name, sizes = WIDTH, high - low
    else:
        sets = table.select(f"in_set_{yaml_text(each)}" for each in classes).to_numpy()
        inside = sets[np.arange(len(sets)), target.astype(np.int64)]
        name, sizes = SIZE, sets.sum(axis=1)
    share = float(np.average(inside, weights=weights))
    ends = wilson(share, count_equal(len(inside), weights))
    size = rounded(float(np.average(sizes, weights=weights)))
    return Covered(Interval(rounded(share), *ends, "wilson"), name, size)
