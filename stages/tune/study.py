"""The search: batches of trials, trained at once and told in their order.

A search that was killed ends as one that was not: what a sampler draws follows from the seed, the
number of the batch's first trial and the trials of earlier batches, and the trials of a batch that
was cut short are run again under their numbers. Which of a batch are trained side by side, and how,
changes nothing: the sampler and the pruner are told by epoch and in order.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from stages.common.config import Overrides
from stages.common.counts import counted
from stages.model.threads import one_thread
from stages.tune.journal import Journal
from stages.tune.model_size import KEY
from stages.tune.params import TuneParams
from stages.tune.pruners import find_ended, make_pruner
from stages.tune.samplers import choose_sampler, make_sampler, make_study, tell
from stages.tune.space import (
    MAX_POINTS,
    as_suggested,
    draw_points,
    from_suggested,
    name_of,
    nearest_first,
    points,
    suggest,
)
from stages.tune.trials import Search, TrainTrials, Trial, TrialResult

# How often a sampler is asked for a recipe that may be tried, and a random one in its place.
MAX_ASKS, MAX_DRAWS = 5, 2000

Keep = Callable[[Sequence[Trial], Mapping[int, TrialResult]], None]


@dataclass(frozen=True)
class _Asked:
    """A trial that is to be trained. `suggested` is None outside of the space."""

    trial: optuna.Trial
    origin: str
    overrides: Overrides
    suggested: dict[str, Any] | None


def search(
    params: TuneParams,
    current: Overrides,
    direction: str,
    seed: int,
    journal: Path,
    train_trials: TrainTrials,
    portfolio: Mapping[str, Overrides] | None = None,
    keep: Keep = lambda _trials, _results: None,
    fits: Callable[[Overrides], bool] = lambda _: True,
) -> Search:
    """Run the trials that the journal doesn't hold yet; return all of them.

    Trial 0 runs the values of `params.yaml`: `current` are those that its keys have. The entries of
    `portfolio`, by their names, come next, without those that are the same recipe as another.
    `direction` is 'minimize' or 'maximize'. `keep` is called with all trials and the results
    of the last batch by their numbers before that batch is noted as ended. Overrides that are not
    as `fits` wants them are not tried, except trial 0.
    """
    sampler, why = choose_sampler(params)
    print(f"sampler: {sampler}" + (f" ({why})" if why else ""))
    facts = _facts(params, current, direction, sampler)
    notes = Journal(journal, facts)
    if notes.trials:
        print(f"resumes after {counted(len(notes.trials), 'trial')} of an earlier run")
    study = make_study(params, direction, sampler, notes.trials)
    source = _Source(params, current, seed, sampler, portfolio or {}, fits)
    sign = 1 if direction == "minimize" else -1
    while not (reason := _find_end(params, sign, notes.trials, notes.seconds)):
        # `gp` computes with torch: with other threads it would draw other trials.
        with one_thread():
            asked = source.ask(study, notes.trials)
        if not asked:
            reason = f"{source.why_none()} after {counted(len(notes.trials), 'trial')}"
            break
        _run(asked, study, params, sign, notes, train_trials, keep, sampler)
        for trial in notes.trials[-len(asked) :]:
            print(_line(trial, params.trials), flush=True)
    print(f"ends: {reason}")
    return Search(tuple(notes.trials), direction, sampler, reason)


def _run(
    asked: Sequence[_Asked],
    study: optuna.Study,
    params: TuneParams,
    sign: int,
    notes: Journal,
    train_trials: TrainTrials,
    keep: Keep,
    sampler: str,
) -> None:
    """Train a batch, and tell how its trials have ended, in their order."""
    first, began = len(notes.trials), time.monotonic()
    pruner = make_pruner(params, sign, tuple(notes.trials), [each.trial for each in asked])
    reached: list[list[float]] = [[] for _ in asked]
    notes.begin(
        [
            {"number": first + place, "origin": each.origin, "overrides": each.overrides}
            for place, each in enumerate(asked)
        ]
    )

    def on_epoch_end(epoch: int, values: Mapping[int, float]) -> set[int]:
        for place, value in sorted(values.items()):
            reached[place].append(value)
            asked[place].trial.report(value, epoch)
        ended = find_ended(pruner, epoch, values, params.epochs, first)
        named = {first + place: value for place, value in values.items()}
        seconds = time.monotonic() - began
        notes.reach(epoch, named, sorted(first + place for place in ended), seconds)
        return ended

    results = train_trials([each.overrides for each in asked], on_epoch_end)
    told: list[Trial] = []
    for place, (each, result) in enumerate(zip(asked, results, strict=True)):
        memory = tell(study, sampler, each.trial, each.suggested, result.end, result.value)
        told.append(
            Trial(
                number=first + place,
                origin=each.origin,
                overrides=each.overrides,
                end=result.end,
                value=result.value if result.end == "complete" else None,
                values=tuple(reached[place]),
                suggested=each.suggested,
                asked=each.trial.number,
                memory=memory,
            )
        )
    keep([*notes.trials, *told], {first + place: r for place, r in enumerate(results)})
    notes.tell(told, time.monotonic() - began)
    notes.trials += told


class _Source:
    """The trials to come: those that stand fixed in their order, then what the sampler draws."""

    def __init__(
        self,
        params: TuneParams,
        current: Overrides,
        seed: int,
        sampler: str,
        portfolio: Mapping[str, Overrides],
        fits: Callable[[Overrides], bool],
    ) -> None:
        self._params, self._current, self._seed, self._sampler = params, current, seed, sampler
        self._fits, self._has_unfit = fits, False
        # A grid is tried point by point, however many it has.
        most = sys.maxsize if sampler == "grid" else MAX_POINTS
        self._points = points(params, current, seed, most)
        fixed = {name_of({}, current): ("params.yaml", Overrides())}
        for name, overrides in portfolio.items():
            fixed.setdefault(name_of(overrides, current), (name, overrides))
        if sampler == "grid":
            for point in self._points or ():
                overrides = from_suggested(params, point)
                fixed.setdefault(name_of(overrides, current), ("grid", overrides))
        self._fixed = iter(fixed.items())

    def ask(self, study: optuna.Study, before: Sequence[Trial]) -> list[_Asked]:
        """The next batch; fewer than asked for, or none, when nothing is left to try."""
        first, params = len(before), self._params
        study.sampler = make_sampler(self._sampler, self._seed + first)
        tried = {name_of(trial.overrides, self._current) for trial in before}
        batch: list[_Asked] = []
        for _ in range(first, min(first + params.batch, params.trials)):
            asked = self._fix(study, tried) or self._draw(study, tried)
            if asked is None:
                break
            tried.add(name_of(asked.overrides, self._current))
            batch.append(asked)
        return batch

    def why_none(self) -> str:
        """The reason why nothing is left to try, in words."""
        if not self._has_unfit:
            return "no recipe is left in the space"
        if self._points is not None:
            return f"no recipe within {KEY} is left in the space"
        return f"no recipe within {KEY} was found in {MAX_DRAWS:,} random ones"

    def _fix(self, study: optuna.Study, tried: set[str]) -> _Asked | None:
        for name, (origin, overrides) in self._fixed:
            # Trial 0, without overrides, is what all others are compared with.
            if name in tried or (overrides and not self._is_fit(overrides)):
                continue
            suggested = as_suggested(overrides, self._params, self._current)
            return _Asked(self._place(study, suggested), origin, overrides, suggested)
        return None

    def _draw(self, study: optuna.Study, tried: set[str]) -> _Asked | None:
        """A recipe that was not tried: the sampler's, or the nearest to it, or a random one."""
        params, current = self._params, self._current
        left = self._points and [p for p in self._points if self._name(p) not in tried]
        if self._sampler == "grid" or left == []:
            return None
        drawn: dict[str, Any] = {}
        for _ in range(MAX_ASKS):
            trial = study.ask()
            overrides = suggest(trial, params, current)
            if name_of(overrides, current) not in tried and self._is_fit(overrides):
                return _Asked(trial, self._sampler, overrides, trial.params)
            drawn = trial.params
            study.tell(trial, state=TrialState.FAIL)
        # It has settled on what it knows, or on what is too large; the space holds more than that.
        if left is None:
            # Until the batch ends it learns nothing, and would draw the like again.
            study.sampler = make_sampler("random", self._seed + len(tried))
        others: Iterable[dict[str, Any]] = (
            draw_points(params, current, self._seed + len(tried), MAX_DRAWS)
            if left is None
            else nearest_first(params, drawn, left)
        )
        for point in others:
            overrides = from_suggested(params, point)
            if name_of(overrides, current) not in tried and self._is_fit(overrides):
                return _Asked(self._place(study, point), self._sampler, overrides, point)
        return None

    def _is_fit(self, overrides: Overrides) -> bool:
        fits = self._fits(overrides)
        self._has_unfit |= not fits
        return fits

    def _name(self, point: Mapping[str, Any]) -> str:
        return name_of(from_suggested(self._params, point), self._current)

    def _place(self, study: optuna.Study, suggested: dict[str, Any] | None) -> optuna.Trial:
        """A trial with these suggestions, for which no sampler is asked."""
        sampler, study.sampler = study.sampler, RandomSampler(seed=0)
        if suggested:
            study.enqueue_trial(suggested)
        trial = study.ask()
        if suggested is not None:
            suggest(trial, self._params, self._current)
        study.sampler = sampler
        return trial


def _find_end(params: TuneParams, sign: int, trials: Sequence[Trial], seconds: float) -> str:
    """The reason why no other batch begins; nothing while one does."""
    if len(trials) >= params.trials:
        return f"all {params.trials} trials were tried"
    if params.seconds is not None and seconds >= params.seconds:
        done = counted(len(trials), "trial")
        return f"{params.seconds:g} seconds of training are over after {done}"
    complete = [trial for trial in trials if trial.value is not None]
    if params.patience is not None and complete:
        best = min(complete, key=lambda trial: sign * float(trial.value or 0.0))
        since = len(trials) - 1 - best.number
        if since >= params.patience:
            return f"{since} trials were no better than trial {best.number}"
    return ""


def _facts(params: TuneParams, current: Overrides, direction: str, sampler: str) -> dict[str, Any]:
    """The facts for somebody who watches the search from outside."""
    return {
        "trials": params.trials,
        "batch": params.batch,
        "epochs": params.epochs,
        "direction": direction,
        "sampler": sampler,
        "current": {path: current.get(path) for path in params.space},
    }


def _line(trial: Trial, num_trials: int) -> str:
    tried = ", ".join(f"{path} {value}" for path, value in trial.overrides.items())
    value = trial.end if trial.value is None else f"{trial.value:.5f}"
    origin = f" [{trial.origin}]" if trial.origin not in ("params.yaml", "grid") else ""
    place = f"trial {trial.number} ({trial.number + 1}/{num_trials})"
    return f"{place}  {value}  {tried or 'as in params.yaml'}{origin}"
