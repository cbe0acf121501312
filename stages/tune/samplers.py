"""Optuna's study in memory: it has the trials of the space, and its sampler draws the next ones.

What it draws follows from the seed, the number of the batch's first trial and the trials before it,
so a study that is made again from its trials goes on as the first one would have.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from stages.common.config import MAX_SEED
from stages.tune.params import Range, TuneParams, condition
from stages.tune.space import make_distributions
from stages.tune.trials import End, Trial

# Within these a Gaussian process is worth the time that it takes to fit.
MAX_GP_KEYS, MAX_GP_TRIALS = 8, 100
# The pruners that judge a trial by an epoch that says little of the last one: a Gaussian process
# would take such a value for the trial's.
EARLY_PRUNERS = ("hyperband", "halving")


def choose_sampler(params: TuneParams) -> tuple[str, str]:
    """The sampler's name, and the reason where a rule chose it (`auto`)."""
    if params.sampler != "auto":
        return params.sampler, ""
    numbers = all(isinstance(d, Range) and not condition(d) for d in params.space.values())
    if not numbers:
        return "tpe", "not all keys are ranges without a condition"
    if len(params.space) > MAX_GP_KEYS:
        return "tpe", f"more than {MAX_GP_KEYS} keys"
    if params.trials > MAX_GP_TRIALS:
        return "tpe", f"more than {MAX_GP_TRIALS} trials"
    if params.pruner in EARLY_PRUNERS:
        return "tpe", f"{params.pruner} ends most trials early"
    return "gp", "a small space of ranges"


def make_sampler(name: str, seed: int) -> BaseSampler:
    """Optuna's sampler of that name; of a grid the points are all given, and nothing is drawn."""
    seed %= MAX_SEED + 1
    with warnings.catch_warnings():
        # Of Optuna's arguments some are experimental: its version is pinned.
        warnings.simplefilter("ignore", ExperimentalWarning)
        if name == "tpe":
            return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        if name == "gp":
            # Optuna imports it; here it makes its version a dependency of the stage.
            import scipy  # noqa: F401

            return GPSampler(seed=seed, warn_independent_sampling=False)
        if name == "cmaes":
            import cmaes  # noqa: F401

            return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return RandomSampler(seed=seed)


def make_study(
    params: TuneParams, direction: str, sampler: str, trials: Sequence[Trial]
) -> optuna.Study:
    """The study as it was after `trials`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(study_name="tune", direction=direction)
    if params.pruner == "hyperband":
        study.pruner = optuna.pruners.HyperbandPruner(max_resource=params.epochs)
    distributions = make_distributions(params)
    for trial in trials:
        while len(study.get_trials(deepcopy=False)) < trial.asked:
            # A recipe that was tried already, in whose place the next was asked for.
            study.add_trial(optuna.create_trial(state=TrialState.FAIL))
        suggested = trial.suggested or {}
        state, value = _told(sampler, trial.suggested, trial.end, trial.value, trial.values)
        if state == TrialState.PRUNED and trial.values:
            value = trial.values[-1]
        study.add_trial(
            optuna.create_trial(
                state=state,
                value=value,
                params=suggested,
                distributions={path: distributions[path] for path in suggested},
                intermediate_values=dict(enumerate(trial.values, start=1)),
                system_attrs=trial.memory,
            )
        )
    return study


def tell(
    study: optuna.Study,
    sampler: str,
    trial: optuna.Trial,
    suggested: dict[str, Any] | None,
    end: End,
    value: float | None,
) -> dict[str, Any]:
    """Tell the study how a trial has ended; return what it has noted of it."""
    frozen = study.get_trials(deepcopy=False)[trial.number]
    values = tuple(frozen.intermediate_values.values())
    state, value = _told(sampler, suggested, end, value, values)
    frozen = study.tell(trial, value, state)
    return dict(frozen.system_attrs)


def _told(
    sampler: str,
    suggested: dict[str, Any] | None,
    end: End,
    value: float | None,
    values: Sequence[float],
) -> tuple[TrialState, float | None]:
    """State and value in Optuna's words."""
    if suggested is None:
        # Samplers that learn of a trial in other keys forget those that it has no values for.
        return TrialState.FAIL, None
    if end == "complete":
        return TrialState.COMPLETE, value
    if end == "pruned" and sampler in ("gp", "cmaes"):
        # They learn of complete trials alone. What it has reached is worse than what it would have.
        return TrialState.COMPLETE, values[-1]
    return TrialState.PRUNED, None
