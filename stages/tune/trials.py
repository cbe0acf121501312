"""The records of a search: a trial that has ended, and what trains a batch of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stages.common.config import Overrides
from stages.common.errors import Problem, UserError
from stages.features.schema import Array

End = Literal["complete", "pruned", "diverged"]
# Called when members of a batch have reached an epoch (from 1 on), with their values by their place
# in the batch; returns the places of those that end there.
OnEpochEnd = Callable[[int, Mapping[int, float]], set[int]]


@dataclass(frozen=True)
class TrialResult:
    """The end of a training. `value` is that of its best epoch, None where it diverged.

    `scores` (rows, classes) or (rows,) are those on validation with the weights that are kept;
    None where it did not come to its end.
    """

    end: End
    value: float | None
    scores: Array | None = None


# Trains with each of the overrides; the results are in the same order. For a pruner that compares
# the members (`hyperband`, `halving`) each call has the values of all that still train; for others
# they may come in parts. Members that end by themselves are in no later call.
TrainTrials = Callable[[Sequence[Overrides], OnEpochEnd], list[TrialResult]]


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    `origin` says where its values are from: 'params.yaml', the name of a portfolio's entry, or the
    sampler. `values` are those of its epochs, from the first on; `value` that of the best, None
    unless it came to its end. `suggested` are the values in Optuna's words, None outside of the
    space. `asked` is its number in Optuna's study, `memory` what the sampler and the pruner have
    noted there.
    """

    number: int
    origin: str
    overrides: Overrides
    end: End
    value: float | None
    values: tuple[float, ...]
    suggested: dict[str, Any] | None
    asked: int
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """All trials of a search, in order, and why it ended, in words.

    `direction` is 'minimize' or 'maximize'; `sampler` is the one that was used.
    """

    trials: tuple[Trial, ...]
    direction: str
    sampler: str
    reason: str

    @property
    def sign(self) -> int:
        """1 where less is better, else -1."""
        return 1 if self.direction == "minimize" else -1


def rank_trials(trials: Sequence[Trial], sign: int) -> list[Trial]:
    """The complete trials, best first; of equals the first. `sign` is 1 where less is better."""
    complete = [trial for trial in trials if trial.value is not None]
    return sorted(complete, key=lambda trial: sign * float(trial.value or 0.0))


def rank(search: Search) -> list[Trial]:
    """The complete trials of a search, best first; of equals the first."""
    return rank_trials(search.trials, search.sign)


def best_trial(search: Search) -> Trial:
    """The best complete trial, the first of equals. Raises UserError when there is none."""
    ranked = rank(search)
    if not ranked:
        message = "not one trial could be trained to its end; see their lines above"
        raise UserError(Problem(message, key="tune.space"))
    return ranked[0]
