"""The trials of a batch that end after an epoch, because others are better there."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import optuna

from stages.tune.params import TuneParams
from stages.tune.trials import Trial

# (epoch, values by place) → the places of those that end.
Pruner = Callable[[int, Mapping[int, float]], set[int]]
# A median of fewer says little.
MIN_COMPLETE = 5
# Successive halving keeps one of so many at each of these shares of the epochs.
FACTOR = 3
RUNGS = (0.01, 0.03, 0.09, 0.27)


def make_pruner(
    params: TuneParams, sign: int, before: Sequence[Trial], asked: Sequence[optuna.Trial]
) -> Pruner:
    """The pruner of one batch, whose trials are `asked`; `before` are those of earlier batches.

    `sign` is 1 where less is better, else -1. It sees an epoch's values once they are reported.
    """
    if params.pruner == "median":
        return lambda epoch, values: _below_median(sign, before, asked, epoch, values)
    if params.pruner == "hyperband":
        return lambda _, values: {place for place in values if asked[place].should_prune()}
    if params.pruner == "halving":
        return _halving(params.epochs, sign)
    return lambda _epoch, _values: set()


def _below_median(
    sign: int,
    before: Sequence[Trial],
    asked: Sequence[optuna.Trial],
    epoch: int,
    values: Mapping[int, float],
) -> set[int]:
    """Those whose best value so far is worse than the median of complete trials at this epoch."""
    complete = [trial for trial in before if trial.end == "complete"]
    there = [sign * trial.values[epoch - 1] for trial in complete if len(trial.values) >= epoch]
    if len(complete) < MIN_COMPLETE or not there:
        return set()
    middle = median(there)
    reported = [trial.study.get_trials(deepcopy=False)[trial.number] for trial in asked]
    best = {
        place: min(sign * value for value in reported[place].intermediate_values.values())
        for place in values
    }
    return {place for place, value in best.items() if value > middle}


def rungs(num_epochs: int) -> list[int]:
    """The epochs after which successive halving ends trials, from the first on."""
    return sorted({math.ceil(share * num_epochs) for share in RUNGS} - {num_epochs})


def _halving(num_epochs: int, sign: int) -> Pruner:
    """Synchronous successive halving: the best third of the batch goes on from each rung.

    A trial is judged by its best epoch so far, and one that stopped early by itself still counts.
    """
    due = rungs(num_epochs)
    best: dict[int, float] = {}
    ended: set[int] = set()

    def prune(epoch: int, values: Mapping[int, float]) -> set[int]:
        for place, value in values.items():
            best[place] = min(sign * value, best.get(place, math.inf))
        if epoch not in due:
            return set()
        left = sorted(best.keys() - ended, key=lambda place: (best[place], place))
        worse = {*left[math.ceil(len(left) / FACTOR) :]} & values.keys()
        ended.update(worse)
        return worse

    return prune
