"""The trials of a batch that end after an epoch, because others are better there."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import optuna

from stages.tune.params import TuneParams
from stages.tune.trials import Trial

# (epoch, values by place) → the places of those that end.
Pruner = Callable[[int, Mapping[int, float]], set[int]]
# These compare the trials of a batch after the same epoch.
IN_STEP = ("hyperband", "halving")
# A median of fewer says little.
MIN_COMPLETE = 5
# Successive halving keeps one of so many at each of these shares of the epochs.
FACTOR = 3
RUNGS = (0.01, 0.03, 0.09, 0.27)


def make_pruner(
    params: TuneParams, sign: int, before: Sequence[Trial], asked: Sequence[optuna.Trial]
) -> Pruner:
    """The pruner of one batch, whose trials are `asked`; `before` are those of earlier batches.

    `sign` is 1 where less is better, else -1. It sees an epoch's values once they are reported;
    only `hyperband` looks at `asked`.
    """
    if params.pruner == "median":
        return _below_median(sign, before)
    if params.pruner == "hyperband":
        return lambda _, values: {place for place in values if asked[place].should_prune()}
    if params.pruner == "halving":
        return _halving(params.epochs, sign)
    return lambda _epoch, _values: set()


def find_ended(
    pruner: Pruner, epoch: int, values: Mapping[int, float], num_epochs: int, first: int
) -> set[int]:
    """The places of those that end after an epoch; `first` is the number of the first trial.

    Trial 0 is what all others are compared with: it always comes to its end. After the last epoch
    nothing is saved by ending a trial.
    """
    if epoch >= num_epochs:
        return set()
    found = pruner(epoch, dict(sorted(values.items())))
    return {place for place in found if first + place > 0}


def _below_median(sign: int, before: Sequence[Trial]) -> Pruner:
    """End those whose best value so far is worse than the median of complete trials there."""
    complete = [trial for trial in before if trial.end == "complete"]
    best: dict[int, float] = {}

    def prune(epoch: int, values: Mapping[int, float]) -> set[int]:
        for place, value in values.items():
            best[place] = min(sign * value, best.get(place, math.inf))
        there = [sign * trial.values[epoch - 1] for trial in complete if len(trial.values) >= epoch]
        if len(complete) < MIN_COMPLETE or not there:
            return set()
        middle = median(there)
        return {place for place in values if best[place] > middle}

    return prune


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
