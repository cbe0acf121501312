"""An ensemble of the best trials: which of them, and what it gains on the validation rows.

Greedy selection with replacement (Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble selection from
libraries of models, ICML 2004). Chosen and judged on the same rows an ensemble looks better than it
is: its gain is that of ensembles which are chosen on one half of the rows and judged on the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stages.common.config import Overrides
from stages.common.files import rounded
from stages.features.schema import Array, Moments
from stages.features.target_scale import to_units
from stages.training.params import TrainParams
from stages.tune.trials import Trial, TrialResult, rank_trials

Metric = Literal["log_loss", "accuracy", "rmse"]
Floats = npt.NDArray[np.float64]
MAX_MEMBERS = 25
NUM_RESAMPLES = 1000
# Halves of fewer rows say nothing.
MIN_ROWS = 20
# Losses of values whose mean prediction is judged by its squared errors.
BY_RMSE = ("MSELoss", "HuberLoss", "SmoothL1Loss", "L1Loss")


@dataclass(frozen=True)
class Rows:
    """The validation rows: class codes or values (rows,), and their weights (rows,).

    With a `scale` predictions are scores, of which it makes values such as the target's.
    """

    target: Floats
    weight: Floats
    scale: Moments | None = None

    def take(self, rows: Array) -> "Rows":
        """Some of the rows."""
        return Rows(self.target[rows], self.weight[rows], self.scale)


@dataclass(frozen=True)
class Proposal:
    """An ensemble: how often each trial is in it, by its number, the most frequent first.

    `value` is its metric on all rows, `best_value` that of the best trial there, `best`. `gain` is
    how much better it is by halves, within `low` and `high` (95 %).
    """

    metric: Metric
    members: dict[int, int]
    value: float
    best: int
    best_value: float
    gain: float
    low: float
    high: float

    def to_json(self, overrides: Mapping[int, Overrides]) -> dict[str, Any]:
        """The proposal as it is written; `overrides` are those of each trial, by its number."""
        total = sum(self.members.values())
        return {
            "metric": self.metric,
            "members": [
                {"trial": number, "weight": count / total, "set": overrides[number]}
                for number, count in self.members.items()
            ],
            "value": rounded(self.value),
            "best": {"trial": self.best, "value": rounded(self.best_value)},
            "gain": {
                "value": rounded(self.gain),
                "interval": [*map(rounded, (self.low, self.high))],
            },
        }


def describe(proposal: Proposal, num_trials: int) -> str:
    """The proposal in words: what it gains, and the line that has it trained."""
    metric, alone = proposal.metric, proposal.best_value
    gain = f"{proposal.gain:.5f} ({proposal.low:.5f} to {proposal.high:.5f})"
    said = (
        f"ensemble of {len(proposal.members)} of the best {num_trials} trials: {metric} "
        f"{proposal.value:.5f}, the best trial alone {alone:.5f}; chosen and judged on different "
        f"rows it gains {gain}"
    )
    if len(proposal.members) == 1:
        return f"no ensemble of the best {num_trials} trials is better than one of them"
    if proposal.low <= 0:
        return f"{said}, which holds 0: the best trial alone may be as good"
    return f"{said}\nto train it, in params.yaml:\n  train:\n    ensemble: tune"


def choose_metric(recipe: TrainParams, task: str, watched: str) -> Metric | None:
    """The metric of an ensemble; None for a loss of which a mean prediction says nothing."""
    if task == "classification":
        return "accuracy" if watched == "accuracy" else "log_loss"
    return "rmse" if watched == "rmse" or recipe.loss.name in BY_RMSE else None


def keep_scores(
    folder: Path, count: int, sign: int, trials: Sequence[Trial], results: Mapping[int, TrialResult]
) -> None:
    """Leave the scores of the best `count` of `trials` in `folder`; `results` has the new ones."""
    folder.mkdir(parents=True, exist_ok=True)
    best = {trial.number for trial in rank_trials(trials, sign)[:count]}
    for number, result in results.items():
        if number in best and result.scores is not None:
            np.save(folder / f"{number}.npy", result.scores, allow_pickle=False)
    for file in folder.glob("*.npy"):
        if int(file.stem) not in best:
            file.unlink()


def read_scores(folder: Path, ranked: Sequence[Trial]) -> dict[int, Array]:
    """The scores that are kept, by the number of their trial, in the order of `ranked`."""
    files = {trial.number: folder / f"{trial.number}.npy" for trial in ranked}
    return {number: np.load(file) for number, file in files.items() if file.exists()}


def propose(scores: Mapping[int, Array], rows: Rows, metric: Metric, seed: int) -> Proposal:
    """The ensemble that greedy selection finds among `scores`, by trial, the best trial first.

    They are logarithms of probabilities (rows, classes), or values (rows,).
    """
    numbers = list(scores)
    candidates = [
        np.exp(s.astype(np.float64)) if s.ndim == 2 else s.astype(np.float64)
        for s in scores.values()
    ]
    chosen = select(candidates, rows, metric)
    counts = {place: chosen.count(place) for place in sorted(set(chosen), key=chosen.count)[::-1]}
    mean = np.mean([candidates[place] for place in chosen], axis=0)
    singles = [_value(_losses(c, rows, metric), rows.weight, metric) for c in candidates]
    best = int(np.argmin(singles))
    ours, alone = _judge_by_halves(candidates, rows, metric, seed)
    gain, low, high = _interval(ours, alone, rows.weight, metric, seed)
    sign = -1 if metric == "accuracy" else 1
    base = 1.0 if metric == "accuracy" else 0.0
    value = _value(_losses(mean, rows, metric), rows.weight, metric)
    return Proposal(
        metric=metric,
        members={numbers[place]: count for place, count in counts.items()},
        value=base + sign * value,
        best=numbers[best],
        best_value=base + sign * singles[best],
        gain=gain,
        low=low,
        high=high,
    )


def select(candidates: Sequence[Floats], rows: Rows, metric: Metric) -> list[int]:
    """The places of the members, one for each time that it is in the ensemble.

    In each round the candidate joins with which the mean is best, the first of equals; of all
    rounds the best one counts, the first of equals.
    """
    total = np.zeros_like(candidates[0])
    members: list[int] = []
    best: tuple[float, int] = (np.inf, 0)
    for count in range(1, MAX_MEMBERS + 1):
        values = [
            _value(_losses((total + candidate) / count, rows, metric), rows.weight, metric)
            for candidate in candidates
        ]
        place = int(np.argmin(values))
        members.append(place)
        total += candidates[place]
        # What is better in rounding alone is no better.
        if values[place] < best[0] * (1 - 1e-9):
            best = values[place], count
    return members[: best[1]]


def _losses(predictions: Floats, rows: Rows, metric: Metric) -> Floats:
    """The loss of each row (rows,): less is better."""
    if metric == "rmse":
        values = predictions if rows.scale is None else to_units(predictions, rows.scale)
        squares: Floats = np.square(values - rows.target)
        return squares
    if metric == "accuracy":
        wrong: Floats = (predictions.argmax(axis=1) != rows.target).astype(np.float64)
        return wrong
    likelihood = predictions[np.arange(len(rows.target)), rows.target.astype(np.int64)]
    logarithms: Floats = -np.log(np.maximum(likelihood, 1e-12))
    return logarithms


def _value(losses: Floats, weight: Floats, metric: Metric) -> float:
    """The metric of losses by row, as a number of which less is better."""
    mean = float(np.average(losses, weights=weight))
    return float(np.sqrt(mean)) if metric == "rmse" else mean


def _judge_by_halves(
    candidates: Sequence[Floats], rows: Rows, metric: Metric, seed: int
) -> tuple[Floats, Floats]:
    """Losses by row (rows,) of the ensemble and of the best trial that the other half chooses."""
    num_rows = len(rows.target)
    order = np.random.default_rng([seed, 0]).permutation(num_rows)
    ours, alone = np.empty(num_rows), np.empty(num_rows)
    halves = order[: num_rows // 2], order[num_rows // 2 :]
    for chosen_on, judged_on in (halves, halves[::-1]):
        known, judged = rows.take(chosen_on), rows.take(judged_on)
        inner = [candidate[chosen_on] for candidate in candidates]
        members = select(inner, known, metric)
        mean = np.mean([candidates[place][judged_on] for place in members], axis=0)
        ours[judged_on] = _losses(mean, judged, metric)
        best = int(
            np.argmin([_value(_losses(c, known, metric), known.weight, metric) for c in inner])
        )
        alone[judged_on] = _losses(candidates[best][judged_on], judged, metric)
    return ours, alone


def _interval(
    ours: Floats, alone: Floats, weight: Floats, metric: Metric, seed: int
) -> tuple[float, float, float]:
    """The gain of the one over the other, and its 95 % interval over resampled rows."""

    def gain(rows: Array | slice) -> float:
        parts = (_value(losses[rows], weight[rows], metric) for losses in (alone, ours))
        return next(parts) - next(parts)

    random = np.random.default_rng([seed, 1])
    drawn = [gain(random.integers(len(ours), size=len(ours))) for _ in range(NUM_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return gain(slice(None)), float(low), float(high)
