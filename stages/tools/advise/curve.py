"""The learning curve: the metric of trainings on ever more rows, and what twice as many bring.

The error of many learners falls as a + b n^-c (Hestness et al., Deep learning scaling is
predictable, empirically, 2017). Each doubling then brings what the one before it brought, times
2^-c. What all of them brought, and c, are drawn many times, which gives the interval.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.tools.advise.measure.judge import LEVEL, Estimate

Floats = npt.NDArray[np.float64]
MIN_POWER, MAX_POWER = 0.1, 3.0
# The deviation of the logarithm of c beyond what trainings show, by `benchmarks/advise.py`.
DOUBT = 0.7
# Where the curve is too ragged to tell.
USUAL_POWER = 0.7
NUM_DRAWS = 2000
# Of Student's t, as the groups of rows give it that an error is from.
FREEDOM = 24
# From so many times the rows on, the curve is no ground to stand on.
MAX_TIMES = 64


@dataclass(frozen=True)
class Curve:
    """`sizes` are the rows that were learned from, and `values` the mean metric there.

    Its sign is turned where less is better. `doubled` is the gain of twice as many rows as the
    largest has, `power` the c of the curve.
    """

    sizes: tuple[int, ...]
    values: tuple[float, ...]
    doubled: Estimate
    power: float

    def rows_for(self, gain: float) -> int | None:
        """The rows to add for a gain; None where the curve ends below it, or far away."""
        ratio, whole = 2**-self.power, self.sizes[-1]
        # The gain of n times the rows is a geometric sum of those of the doublings.
        most = self.doubled.gain / (1 - ratio) if self.doubled.gain > 0 else 0.0
        if gain >= most:
            return None
        doublings = math.log(1 - gain / most) / math.log(ratio)
        return None if 2**doublings > MAX_TIMES else math.ceil(whole * (2**doublings - 1))


def fit_curve(values: Mapping[int, Floats], whole: Estimate, seed: int, perfect: float) -> Curve:
    """The curve of values by the rows learned from: of each size (units,), in the same order.

    The sizes double, and `whole` is the gain of the largest over the smallest. `perfect` is the
    value where nothing is wrong. A gain that is not sure may be that of a learner which has hardly
    begun, on too few rows: the law says nothing of it, and only that value bounds what may come.
    """
    from scipy.stats import t as student

    sizes = sorted(values)
    table = np.array([values[size] for size in sizes])
    num_doublings = len(sizes) - 1
    random = np.random.default_rng([seed, 3])
    units = random.integers(table.shape[1], size=(NUM_DRAWS, table.shape[1]))
    powers = np.array([_power(table[:, each].mean(axis=1)) for each in units])
    # No curve follows the law to the letter.
    powers = np.clip(powers * np.exp(DOUBT * random.normal(size=NUM_DRAWS)), MIN_POWER, MAX_POWER)
    errors = whole.error * student.rvs(FREEDOM, size=NUM_DRAWS, random_state=random)
    gains = np.array(
        [
            _next(whole.gain + error, power, num_doublings)
            for error, power in zip(errors, powers, strict=True)
        ]
    )
    power = _power(table.mean(axis=1))
    # More rows do no harm: what seems so is luck.
    gain = max(0.0, _next(whole.gain, power, num_doublings))
    low, high = map(float, np.quantile(gains, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]))
    low, high = min(low, gain), max(high, gain)
    if whole.low <= 0:
        high = max(high, perfect - float(table[-1].mean()))
    probability, error = float((gains > 0).mean()), float(gains.std())
    doubled = Estimate(gain, error, low, high, probability, table.shape[1])
    means = tuple(float(mean) for mean in table.mean(axis=1))
    return Curve(tuple(sizes), means, doubled, power)


def _next(gain: float, power: float, num_doublings: int) -> float:
    """The gain of a doubling, before which `num_doublings` brought `gain` together.

    Each brings what the one before it brought, times 2^-power.
    """
    return float(gain / sum(2 ** (power * number) for number in range(1, num_doublings + 1)))


def _power(means: Floats) -> float:
    """The c of a + b n^-c through `means` at sizes that double, from the gains of the doublings."""
    gains = np.diff(means)
    if len(gains) < 2 or gains[:-1].sum() <= 0 or gains[1:].sum() <= 0:
        return USUAL_POWER
    # Sums are steadier than single gains.
    power = -math.log2(gains[1:].sum() / gains[:-1].sum())
    return float(np.clip(power, MIN_POWER, MAX_POWER))
