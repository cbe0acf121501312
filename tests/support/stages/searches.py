"""Searches on a function whose lowest point is known."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.common.config import Overrides
from stages.tune.params import TuneParams
from stages.tune.study import search
from stages.tune.trials import OnEpochEnd, Search, TrainTrials, Trial, TrialResult
from tests.stages.tune.conftest import LR, SPACE, WIDTH

CURRENT: Overrides = {LR: 0.5, WIDTH: 16}
EPOCHS = 9


def tune_params(**changes: object) -> TuneParams:
    section = {
        "trials": 12,
        "batch": 1,
        "epochs": EPOCHS,
        "seconds": None,
        "patience": None,
        "sampler": "tpe",
        "pruner": "none",
        "portfolio": False,
        "keep_scores": 0,
        "model_size": None,
        "space": SPACE,
    }
    return TuneParams.model_validate({**section, **changes})


def bowl(overrides: Overrides, epoch: int) -> float:
    """A training in no time: best at a learning rate of 0.01 and 32 units."""
    tried = {**CURRENT, **overrides}
    depth = (math.log10(tried[LR]) + 2) ** 2 + abs(math.log2(tried[WIDTH]) - 5) / 10
    return float(depth + 1 / epoch)


def in_step(value: Callable[[Overrides, int], float]) -> TrainTrials:
    """Trains that function: all members of a batch reach an epoch at once."""

    def train_trials(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        results = [TrialResult("complete", value(each, EPOCHS)) for each in tried]
        left = set(range(len(tried)))
        for epoch in range(1, EPOCHS + 1):
            values = {place: value(tried[place], epoch) for place in left}
            for place in on_epoch_end(epoch, values) if left else ():
                left.remove(place)
                results[place] = TrialResult("pruned", None)
        return results

    return train_trials


def in_turns(value: Callable[[Overrides, int], float]) -> TrainTrials:
    """Trains that function, one member to its end after another."""

    def train_trials(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        def numbered(place: int) -> OnEpochEnd:
            def call(epoch: int, values: Mapping[int, float]) -> set[int]:
                ended = on_epoch_end(epoch, {place: values[0]})
                return {0} if ended else set()

            return call

        return [in_step(value)([each], numbered(i))[0] for i, each in enumerate(tried)]

    return train_trials


def run(
    params: TuneParams,
    journal: Path,
    seed: int = 0,
    train: TrainTrials | None = None,
    current: Overrides = CURRENT,
    **given: Any,
) -> Search:
    train = in_step(bowl) if train is None else train
    return search(params, current, "minimize", seed, journal, train, **given)


def trials_of(params: TuneParams, journal: Path, **given: Any) -> tuple[Trial, ...]:
    return run(params, journal, **given).trials


def tried(trials: Sequence[Trial]) -> list[Overrides]:
    return [{**CURRENT, **trial.overrides} for trial in trials]


def story(trials: Sequence[Trial]) -> list[Trial]:
    """All that a trial is but for what Optuna has noted: CMA-ES pickles its state there."""
    return [replace(trial, memory={}) for trial in trials]


ALL = ["tpe", "gp", "cmaes", "random", "grid"]


def space_of(sampler: str) -> dict[str, Any]:
    return {LR: [1e-4, 1e-3, 1e-2, 1e-1], WIDTH: [8, 16, 32]} if sampler == "grid" else SPACE
