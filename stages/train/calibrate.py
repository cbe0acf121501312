"""After the training: the temperature and the threshold, fitted on the validation rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stages.common.files import rounded
from stages.model.calibration import Calibration, predict_codes, to_probabilities
from stages.tensors.batch import Batch
from stages.training.data.source import Source, rows_at_once
from stages.training.params import CalibrationParams, ThresholdMetric

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[Any]
# A model that is right about every validation row would have one of 0.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
PLAIN_THRESHOLD = 0.5
# Probabilities no further apart differ by rounding.
NEAR = 1e-6


def calibrate_scores(
    scores: Floats, codes: Codes, weights: Floats | None, params: CalibrationParams
) -> tuple[Calibration, list[str]]:
    """The calibration that `params` ask for, and a line on each part.

    It is fitted on scores (rows, classes) of validation rows and their targets' codes (rows,). The
    threshold is chosen on the probabilities that the temperature gives. Rows count by their
    `weights` (rows,), where they have some.
    """
    temperature, threshold, lines = 1.0, None, []
    if params.temperature or params.threshold is not None:
        if params.temperature:
            temperature = fit_temperature(scores, codes, weights)
            losses = [log_loss(scores, codes, divisor, weights) for divisor in (1.0, temperature)]
            shown = " → ".join(f"{loss:.4f}" for loss in losses)
            bound = temperature in (MIN_TEMPERATURE, MAX_TEMPERATURE)
            end = " (the temperature is at its bound)" if bound else ""
            lines.append(f"temperature {temperature:.4g}: validation log loss {shown}{end}")
        if params.threshold is not None:
            probabilities = to_probabilities(scores, temperature)
            metric = params.threshold
            threshold = choose_threshold(probabilities[:, 1], codes, metric, weights)
            shown = " → ".join(
                f"{measure(metric, codes, predict_codes(probabilities, cut), weights):.4f}"
                for cut in (None, threshold)
            )
            lines.append(f"threshold {threshold:.4g}: validation {params.threshold} {shown}")
    return Calibration(temperature=temperature, threshold=threshold), lines


@torch.inference_mode()
def score(model: nn.Module, split: Source) -> tuple[Floats, Codes]:
    """The scores (rows, outputs) that the model gives, and the target (rows,): codes, or values.

    They are computed where its weights lie.
    """
    model.eval()
    size = rows_at_once(split)
    batches = (split.take(slice(s, s + size))[0] for s in range(0, len(split), size))
    parts = [model(to_weights(batch, model)) for batch in batches]
    return torch.cat(parts).double().cpu().numpy(), split.target.cpu().numpy()


def to_weights(batch: Batch, model: nn.Module) -> Batch:
    """The batch on the device of the weights."""
    weight = next(model.parameters(), None)
    if weight is None:
        return batch
    return {kind: tensor.to(weight.device) for kind, tensor in batch.items()}


def log_loss(
    scores: Floats, codes: Codes, temperature: float, weights: Floats | None = None
) -> float:
    """The mean over rows of minus the logarithm of the probability of the target.

    `weights` (rows,) are those of the rows; None: all count the same.
    """
    scaled = scores / temperature
    highest = scaled.max(axis=1)
    total = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
    losses = total - scaled[np.arange(len(codes)), codes]
    return float(np.average(losses, weights=weights))


def fit_temperature(scores: Floats, codes: Codes, weights: Floats | None = None) -> float:
    """The temperature of least log loss between 0.05 and 20, to seven digits.

    See Guo et al., 'On Calibration of Modern Neural Networks', ICML 2017, section 4.2.

    In the inverse of the temperature the loss is convex, so its derivative has one zero: there
    the mean score under the model's probabilities is the mean score of the targets.
    """
    from scipy.optimize import brentq

    of_target = scores[np.arange(len(codes)), codes]

    def slope(inverse: float) -> float:
        expected = (to_probabilities(scores, 1 / inverse) * scores).sum(axis=1)
        return float(np.average(expected - of_target, weights=weights))

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope(low) >= 0:
        return MAX_TEMPERATURE
    if slope(high) <= 0:
        return MIN_TEMPERATURE
    return rounded(1 / float(brentq(slope, low, high, xtol=1e-12)))


def choose_threshold(
    probabilities: Floats, codes: Codes, metric: ThresholdMetric, weights: Floats | None = None
) -> float:
    """The threshold on the second class's probability (rows,) with the largest `metric`.

    Of equal ones it is the nearest to 0.5, then the lower.

    It is 0.5 or the middle between two probabilities, to seven digits, that are more than NEAR
    apart: rounding is another in other batches, on other machines and in ONNX.
    """
    known = np.unique(probabilities)
    apart = np.diff(known) > NEAR
    middles = [rounded(float(middle)) for middle in ((known[1:] + known[:-1]) / 2)[apart]]
    cuts = np.unique([*middles, PLAIN_THRESHOLD])
    order = np.argsort(probabilities, kind="stable")
    below = np.searchsorted(probabilities[order], cuts, side="right")
    counts = np.ones(len(codes)) if weights is None else weights
    upto = [np.concatenate([[0.0], np.cumsum(each[order])]) for each in (counts * codes, counts)]
    misses, under = (sums[below] for sums in upto)
    hits = upto[0][-1] - misses
    values = _METRICS[metric](hits, upto[1][-1] - under - hits, misses, under - misses)
    # Counts that mean the same may differ in the last bit.
    values = values.round(12)
    best = cuts[values == values.max()]
    return float(best[np.argmin(np.abs(best - PLAIN_THRESHOLD))])


def measure(
    metric: ThresholdMetric, codes: Codes, predicted: Codes, weights: Floats | None = None
) -> float:
    """The metric of the second class's hits, of predicted codes (rows,)."""
    each = np.ones(len(codes)) if weights is None else weights
    counts = [
        np.array([each[(predicted == said) & (codes == is_)].sum()])
        for said, is_ in ((1, 1), (1, 0), (0, 1), (0, 0))
    ]
    return float(_METRICS[metric](*counts)[0])


def _ratio(above: Floats, below: Floats) -> Floats:
    """0 where there is nothing to divide by."""
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)


def _accuracy(hits: Floats, alarms: Floats, misses: Floats, rejected: Floats) -> Floats:
    return _ratio(hits + rejected, hits + alarms + misses + rejected)


def _balanced_accuracy(hits: Floats, alarms: Floats, misses: Floats, rejected: Floats) -> Floats:
    recalls = _ratio(hits, hits + misses), _ratio(rejected, rejected + alarms)
    return np.asarray(np.mean(recalls, axis=0))


def _f1(hits: Floats, alarms: Floats, misses: Floats, rejected: Floats) -> Floats:  # noqa: ARG001
    return _ratio(2 * hits, 2 * hits + alarms + misses)


def _matthews(hits: Floats, alarms: Floats, misses: Floats, rejected: Floats) -> Floats:
    covariance = hits * rejected - alarms * misses
    sides = (hits + alarms, hits + misses, rejected + alarms, rejected + misses)
    return _ratio(covariance, np.sqrt(np.prod(sides, axis=0)))


# Of the second class: rows rightly and wrongly said to be of it, missed, and rightly not said.
_METRICS: dict[ThresholdMetric, Callable[[Floats, Floats, Floats, Floats], Floats]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1": _f1,
    "matthews_corrcoef": _matthews,
}
