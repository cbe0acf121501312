"""The search: Optuna, one trial after another, in a journal so that a kill loses little.

What a sampler draws follows from the seed, the trial's number and the trials before it, and a
trial that was cut short is done again under its number: a search that was killed ends as one that
was not.

Trials run one by one: TPE and the pruner look at all earlier ones. To train several at once, ask
for a batch of trials here; `make_objective` (trial.py) trains one.
"""

from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from stages.common.config import MAX_SEED, Overrides
from stages.common.errors import Problem, UserError
from stages.tune.params import TuneParams
from stages.tune.space import as_suggested, grid, suggest

# Overrides and a function to report each epoch's metric to; returns the best epoch's.
Objective = Callable[[Overrides, Callable[[int, float], None]], float]
_NAME = "tune"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_DIVERGED = "diverged"


class DivergedTrial(optuna.TrialPruned):  # type: ignore[misc]
    """The trial's loss is not finite any more: Optuna leaves it out as it does one cut short."""


def search(
    params: TuneParams,
    current: Overrides,
    direction: str,
    seed: int,
    journal: Path,
    objective: Objective,
) -> optuna.Study:
    """Run the trials that the journal doesn't hold yet; return the study with all of them.

    Trial 0 runs the values of `params.yaml`: `current` are those that the space has paths for.
    `direction` is 'minimize' or 'maximize'.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _open(journal, direction, params)
    first = as_suggested(current, params)
    queue = [first, *(grid(params, first, seed) if params.sampler == "grid" else ())]
    num_trials = min(params.trials, len(queue)) if params.sampler == "grid" else params.trials
    if done := len(finished(study)):
        print(f"resumes after {done} trials of an earlier run")

    for number in range(done, num_trials):
        study.sampler = _sampler(params, (seed + number) % (MAX_SEED + 1))
        if number < len(queue):
            study.enqueue_trial(queue[number])
        study.optimize(
            lambda trial, number=number: _run(trial, number, params, current, objective),
            n_trials=1,
        )
        print(_line(finished(study)[-1], number, num_trials), flush=True)
    return study


def _open(journal: Path, direction: str, params: TuneParams) -> optuna.Study:
    """The study of a journal, without what a killed search left half done in it.

    Its finished trials are copied, so that they have the numbers that they have in a search
    that was never killed: pruners look at them.
    """

    def create(path: Path) -> optuna.Study:
        return optuna.create_study(
            study_name=_NAME,
            storage=_storage(path),
            direction=direction,
            pruner=_pruner(params),
            load_if_exists=True,
        )

    journal.parent.mkdir(parents=True, exist_ok=True)
    if journal.exists():
        # Optuna would wait half a minute for the lock of a process that is gone.
        journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
        copy = journal.with_name(f"{journal.name}.copy")
        copy.unlink(missing_ok=True)
        try:
            kept = finished(optuna.load_study(study_name=_NAME, storage=_storage(journal)))
        except KeyError:
            kept = []
        create(copy).add_trials(kept)
        copy.replace(journal)
    return create(journal)


def _storage(journal: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(journal)))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to an end, in order."""
    trials: list[FrozenTrial] = study.get_trials(deepcopy=False, states=FINISHED)
    return trials


def _run(
    trial: optuna.Trial,
    number: int,
    params: TuneParams,
    current: Overrides,
    objective: Objective,
) -> float:
    first = as_suggested(current, params)
    suggested = suggest(trial, params, first if number == 0 else params.space)
    overrides = suggested if number > 0 else {}
    trial.set_user_attr("overrides", overrides)
    trial.set_user_attr("tried", overrides or current)

    def report(epoch: int, value: float) -> None:
        trial.report(value, epoch)
        # The trial that all others are compared with is never cut short.
        if number > 0 and trial.should_prune():
            raise optuna.TrialPruned

    try:
        return objective(overrides, report)
    except DivergedTrial:
        trial.set_user_attr(_DIVERGED, True)
        raise


def state_of(trial: FrozenTrial) -> str:
    """The end of a finished trial: 'complete', 'pruned' (cut short as a worse one), 'diverged'."""
    if trial.state == TrialState.COMPLETE:
        return "complete"
    return _DIVERGED if trial.user_attrs.get(_DIVERGED) else "pruned"


def best_trial(study: optuna.Study) -> FrozenTrial:
    """The best complete trial, the first of equals. Raises UserError when there is none."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        message = "not one trial could be trained to its end; see their lines above"
        raise UserError(Problem(message, key="tune.space"))
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    return min(complete, key=lambda trial: sign * float(trial.value or 0.0))


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of the result that each parameter explains, most first.

    Empty with too few trials.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = {trial.value for trial in complete}
    if len(complete) < 4 or len(values) < 2:
        return {}
    # Seconds to import: after the search, and not at all when there is none.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))


def _sampler(params: TuneParams, seed: int) -> optuna.samplers.BaseSampler:
    if params.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    # A grid's trials are all in the queue; it draws nothing.
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(params: TuneParams) -> optuna.pruners.BasePruner:
    if params.pruner == "median":
        return optuna.pruners.MedianPruner()
    if params.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=params.epochs)
    return optuna.pruners.NopPruner()


def _line(trial: FrozenTrial, number: int, num_trials: int) -> str:
    overrides = trial.user_attrs["overrides"]
    tried = ", ".join(f"{path} {value}" for path, value in overrides.items()) or "as in params.yaml"
    state = state_of(trial)
    value = f"{trial.value:.5f}" if state == "complete" else state
    return f"trial {number + 1}/{num_trials}  {value}  {tried}"
