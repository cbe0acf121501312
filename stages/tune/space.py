"""The search space in Optuna's words: what a trial is told, and what it suggests."""

import random
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import optuna

from stages.common.config import Overrides
from stages.tune.params import Range, TuneParams, examples


def suggest(trial: optuna.Trial, params: TuneParams, paths: Iterable[str]) -> Overrides:
    """A value for each of `paths`. Choices are tried by their place in the list."""
    overrides: Overrides = {}
    for path in paths:
        values = params.space[path]
        if not isinstance(values, Range):
            overrides[path] = values[trial.suggest_categorical(path, range(len(values)))]
        elif isinstance(values.low, int) and isinstance(values.high, int):
            overrides[path] = trial.suggest_int(path, values.low, values.high, log=values.log)
        else:
            overrides[path] = trial.suggest_float(path, values.low, values.high, log=values.log)
    return overrides


def as_suggested(current: Overrides, params: TuneParams) -> dict[str, Any]:
    """Return the suggestions from which `current` comes out, for the paths where it can."""
    suggested: dict[str, Any] = {}
    for path, value in current.items():
        values = params.space[path]
        if isinstance(values, Range):
            whole = isinstance(values.low, int) and isinstance(values.high, int)
            number = isinstance(value, int if whole else int | float)
            if number and values.low <= value <= values.high:
                suggested[path] = value
        elif value in values:
            suggested[path] = values.index(value)
    return suggested


def grid(params: TuneParams, excluded: Mapping[str, Any], seed: int) -> list[dict[str, int]]:
    """All points of the space but `excluded`, in an order of the seed's: the place in each list.

    So the first few of a large grid are spread over it.
    """
    places = [range(len(examples(values))) for values in params.space.values()]
    points = [dict(zip(params.space, point, strict=True)) for point in product(*places)]
    random.Random(seed).shuffle(points)
    return [point for point in points if point != excluded]
