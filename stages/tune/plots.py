"""The data of the plots of a search: its history, the importance of each key, where trials lie."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from stages.common.config import Overrides
from stages.common.files import rounded, write_csv
from stages.tune.model_size import find_front, value_of
from stages.tune.params import Dimension, Range, TuneParams, listed
from stages.tune.space import make_distributions
from stages.tune.trials import Search, rank

HISTORY = ("trial", "value", "best")
IMPORTANCE = ("parameter", "importance")
FRONT = ("trial", "value", "size", "front")
POINTS = ("trial", "value", "rank", "parameter", "order", "position", "shown")


def write_plots(
    folder: Path,
    search: Search | None,
    params: TuneParams,
    current: Overrides,
    sizes: Mapping[int, int],
) -> None:
    """Four files; without a search their headers alone, and of `front.csv` without `sizes`."""
    history = [] if search is None else list(_history(search))
    shares = {} if search is None else importances(search, params)
    points = [] if search is None else list(_points(search, params, current))
    write_csv(folder / "history.csv", HISTORY, history)
    rows = [(path, rounded(share)) for path, share in shares.items()]
    write_csv(folder / "importance.csv", IMPORTANCE, rows)
    write_csv(folder / "points.csv", POINTS, points)
    front = [] if search is None or not sizes else list(_front(search, sizes))
    write_csv(folder / "front.csv", FRONT, front)


def _history(search: Search) -> Iterator[Sequence[object]]:
    """Yield each complete trial's value, and the best one so far."""
    best: float | None = None
    better = min if search.sign == 1 else max
    for trial in search.trials:
        if trial.value is not None:
            best = trial.value if best is None else better(best, trial.value)
            yield trial.number, rounded(trial.value), rounded(best)


def _front(search: Search, sizes: Mapping[int, int]) -> Iterator[Sequence[object]]:
    """Yield value and size of each complete trial, and whether no other beats it in both."""
    front = {trial.number for trial in find_front(search, sizes)}
    for trial in sorted(rank(search), key=lambda trial: sizes[trial.number]):
        said = "no other is better in both" if trial.number in front else "another is"
        yield trial.number, rounded(value_of(trial)), sizes[trial.number], said


def importances(search: Search, params: TuneParams) -> dict[str, float]:
    """The share of the result that each parameter explains, most first.

    Of the complete trials in the space; empty with too few of them.
    """
    complete = [t for t in search.trials if t.value is not None and t.suggested is not None]
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    # Seconds to import: after the search, and not at all when there is none.
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    distributions = make_distributions(params)
    study = optuna.create_study(direction=search.direction)
    for trial in complete:
        suggested = trial.suggested or {}
        study.add_trial(
            optuna.create_trial(
                state=TrialState.COMPLETE,
                value=trial.value,
                params=suggested,
                distributions={path: distributions[path] for path in suggested},
            )
        )
    return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))


def _points(search: Search, params: TuneParams, current: Overrides) -> Iterator[Sequence[object]]:
    """Yield the place of each complete trial in the range of each key: 0 is its low end, 1 high.

    Of a list the first value is at 0 and the last at 1. What can't be placed there is left out.
    """
    for place, trial in enumerate(rank(search), start=1):
        tried = {**current, **trial.overrides}
        for order, (path, dimension) in enumerate(params.space.items()):
            position = _position(dimension, tried.get(path))
            if position is not None and trial.value is not None:
                head = (trial.number, rounded(trial.value), place)
                yield *head, _title(path, dimension), order, rounded(position), str(tried[path])


def _position(dimension: Dimension, value: Any) -> float | None:
    if not isinstance(dimension, Range):
        values = listed(dimension)
        return values.index(value) / (len(values) - 1) if value in values else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low, high = dimension.low, dimension.high
    if dimension.log:
        return math.log(value / low) / math.log(high / low) if value > 0 else None
    return (value - low) / (high - low)


def _title(path: str, dimension: Dimension) -> str:
    """The key with its range, as the axis of a plot shows it."""
    if isinstance(dimension, Range):
        return f"{path}  {dimension.low:g} … {dimension.high:g}" + " log" * dimension.log
    return f"{path}  {' | '.join(str(value) for value in listed(dimension))}"
