"""Differences between trainings, with intervals that hold the luck of rows, folds and seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.evaluate.measure.metrics import compute_metrics, less_is_better
from stages.evaluate.measure.predictions import (
    Classified,
    Predicted,
    codes_of,
    probabilities_of,
    values_of,
)
from stages.features.numbers import Rows
from stages.features.schema import Array, Moments
from stages.features.target_scale import to_units
from stages.model.calibration import predict_codes, to_probabilities
from stages.tools.advise.measure.rows import Pool
from stages.train.calibrate import calibrate_scores
from stages.training.params import CalibrationParams

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
UNCALIBRATED = CalibrationParams(temperature=False, threshold=None)


@dataclass(frozen=True)
class Metric:
    """The metric that advice is in: the first of `evaluate.metrics`."""

    name: str
    task: str

    @property
    def sign(self) -> int:
        """The sign of a gain: 1 where more is better, else -1."""
        return -1 if less_is_better(self.name) else 1

    @property
    def perfect(self) -> float:
        """Its value where all is right, as the usual metrics have it."""
        return 0.0 if self.sign < 0 else 1.0

    def step(self, num_rows: int) -> float:
        """The change that one of so many rows can make: its share of a metric from 0 to 1, or 0."""
        return 1 / num_rows if self.task == "classification" and self.sign > 0 else 0.0

    def measure(
        self,
        pool: Pool,
        rows: Rows,
        scores: Floats,
        calibration: CalibrationParams,
        scale: Moments | None = None,
    ) -> float:
        """Its value on `rows`; scores (rows, outputs) are a model's.

        NaN where it has none on such rows. What is fitted on scores (a temperature, a threshold) is
        fitted on one half of the rows for the other. `scale` is as in `predict`.
        """
        target, weights = pool.target(rows), pool.weights(rows)
        predicted = self.predict(pool, rows, scores, calibration, scale)
        if (quick := QUICK.get(self.name)) is not None:
            return quick(target, predicted, weights)
        try:
            return compute_metrics([self.name], self.task, target, predicted, weights)[self.name]
        except ValueError:
            return math.nan

    def predict(
        self,
        pool: Pool,
        rows: Rows,
        scores: Floats,
        calibration: CalibrationParams,
        scale: Moments | None = None,
    ) -> Predicted:
        """The predictions of scores (rows, outputs): values in the target's units, or classes.

        `scale` is that of the values that were learned, where it is not the pool's.
        """
        if self.task == "regression":
            return to_units(scores.reshape(len(rows)), scale or pool.data.scale)
        return _classify(scores, pool.target(rows), pool.weights(rows), calibration)


def _accuracy(target: Array, predicted: Predicted, weights: Floats | None) -> float:
    return float(np.average(codes_of(predicted) == target, weights=weights))


def _log_loss(target: Array, predicted: Predicted, weights: Floats | None) -> float:
    shares = probabilities_of(predicted)[np.arange(len(target)), target.astype(np.int64)]
    smallest = np.finfo(shares.dtype).eps
    losses = -np.log(np.clip(shares, smallest, 1 - smallest))
    return float(np.average(losses, weights=weights))


def _rmse(target: Array, predicted: Predicted, weights: Floats | None) -> float:
    errors = values_of(predicted) - target.astype(np.float64)
    return math.sqrt(float(np.average(np.square(errors), weights=weights)))


def _mae(target: Array, predicted: Predicted, weights: Floats | None) -> float:
    errors = values_of(predicted) - target.astype(np.float64)
    return float(np.average(np.abs(errors), weights=weights))


def _f1_of_classes(target: Array, predicted: Predicted, weights: Floats | None) -> Floats:
    """The F1 of each class (classes,), NaN of one that is neither there nor predicted."""
    codes, known = codes_of(predicted), target.astype(np.int64)
    num_classes = probabilities_of(predicted).shape[1]
    hits = np.ones(len(known)) if weights is None else weights
    right = np.bincount(known, hits * (codes == known), num_classes)
    either = np.bincount(known, hits, num_classes) + np.bincount(codes, hits, num_classes)
    shares = np.divide(2 * right, either, out=np.full(num_classes, np.nan), where=either > 0)
    return np.asarray(shares, np.float64)


def _f1(target: Array, predicted: Predicted, weights: Floats | None) -> float:
    return float(np.nan_to_num(_f1_of_classes(target, predicted, weights)[1]))


def _f1_macro(target: Array, predicted: Predicted, weights: Floats | None) -> float:
    return float(np.nanmean(_f1_of_classes(target, predicted, weights)))


# The usual ones by hand: they are asked thousands of times, for which scikit-learn's checks take
# longer than the metric.
QUICK: dict[str, Callable[[Array, Predicted, Floats | None], float]] = {
    "accuracy": _accuracy,
    "log_loss": _log_loss,
    "rmse": _rmse,
    "mae": _mae,
    "f1": _f1,
    "f1_macro": _f1_macro,
}


def _classify(
    scores: Floats, target: Array, weights: Floats | None, params: CalibrationParams
) -> Classified:
    if params == UNCALIBRATED:
        probabilities = to_probabilities(scores)
        return Classified(predict_codes(probabilities, None), probabilities)
    codes, probabilities = np.zeros(len(target), np.int64), np.zeros(scores.shape)
    half = np.zeros(len(target), bool)
    # Of each class every other row.
    half[np.argsort(target, kind="stable")[::2]] = True
    for fitted, judged in ((half, ~half), (~half, half)):
        own = None if weights is None else weights[fitted]
        calibration, _ = calibrate_scores(scores[fitted], target[fitted], own, params)
        shares = to_probabilities(scores[judged], calibration.temperature)
        codes[judged], probabilities[judged] = predict_codes(shares, calibration.threshold), shares
    return Classified(codes, probabilities)


@dataclass(frozen=True)
class Estimate:
    """A gain with its standard error, and the ends of its interval.

    Above 0 it is better, whatever the metric. `probability` is that of a gain above 0; `num` pairs
    of trainings are behind it.
    """

    gain: float
    error: float
    low: float
    high: float
    probability: float
    num: int

    @property
    def promise(self) -> float:
        """The gain that can be expected of somebody who takes it back where it is none.

        The mean of the part above 0 of a normal distribution.
        """
        if self.error == 0:
            return max(0.0, self.gain)
        distance = self.gain / self.error
        density = math.exp(-(distance**2) / 2) / math.sqrt(2 * math.pi)
        share = 0.5 * (1 + math.erf(distance / math.sqrt(2)))
        return self.gain * share + self.error * density

    @property
    def is_sure(self) -> bool:
        """Check whether the interval is above 0."""
        return self.low > 0


def estimate(
    gains: Sequence[float], without: Sequence[float], num_folds: int = 1, step: float = 0.0
) -> Estimate | None:
    """The mean of `gains`, of pairs of trainings, with its interval.

    `without` are the means when one group of rows after the other is left out. Their spread gives
    the luck of the rows that are judged (the jackknife: Tukey, 1958). That of the gains gives the
    luck of seeds and folds, and of the rows that are learned from: trainings of `num_folds` folds
    share most of these, so that no number of repeats makes this luck less than a fold's weight of
    it (Nadeau and Bengio, Inference for the generalization error, Machine Learning 52, 2003). 1:
    all learned from the same rows. `step` is what one row can change: where no prediction differs
    on the rows at hand, it may on others, so that no error is less. None where fewer than two of
    them are known. `benchmarks/advise.py` measures how many intervals hold.
    """
    from scipy.stats import t as student

    known = np.array([gain for gain in gains if math.isfinite(gain)])
    means = np.array([mean for mean in without if math.isfinite(mean)])
    if len(known) < 2 or len(means) < 2:
        return None
    gain = float(known.mean())
    of_rows = (len(means) - 1) / len(means) * float(np.square(means - means.mean()).sum())
    of_rows = max(of_rows, step**2)
    spread = float(np.var(known, ddof=1))
    # What judges a fold is a part of the rows: so much of the spread is their luck.
    of_learned = max(0.0, spread - num_folds * of_rows)
    weight = 1 / (num_folds - 1) if num_folds > 1 else 0.0
    of_trainings = spread / len(known) + weight * of_learned
    error = math.sqrt(of_rows + of_trainings)
    if error == 0:
        return Estimate(gain, 0.0, gain, gain, 0.5 + 0.5 * float(np.sign(gain)), len(known))
    # Satterthwaite's degrees of freedom of a sum of two variances (Biometrics Bulletin 2, 1946).
    parts = of_rows**2 / (len(means) - 1) + of_trainings**2 / (len(known) - 1)
    freedom = (of_rows + of_trainings) ** 2 / parts
    reach = float(student.ppf(0.5 + LEVEL / 2, freedom)) * error
    probability = float(student.cdf(gain / error, freedom))
    return Estimate(gain, error, gain - reach, gain + reach, probability, len(known))
