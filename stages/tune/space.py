"""The search space: which keys a trial has values for, its points, and both in Optuna's words."""

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from stages.common.config import Overrides
from stages.tune.params import Dimension, Range, TuneParams, condition, listed

# A space of more points is not written out: nobody tries them all.
MAX_POINTS = 20_000
MISSING = object()


def suggest(trial: optuna.Trial, params: TuneParams, current: Overrides) -> Overrides:
    """A value for each key of the space that has one in this trial."""
    distributions = make_distributions(params)

    def draw(path: str) -> Any:
        dimension, distribution = params.space[path], distributions[path]
        if isinstance(distribution, IntDistribution):
            low, high = distribution.low, distribution.high
            return trial.suggest_int(path, low, high, log=distribution.log)
        if isinstance(distribution, FloatDistribution):
            low, high = distribution.low, distribution.high
            return trial.suggest_float(path, low, high, log=distribution.log)
        place = trial.suggest_categorical(path, distribution.choices)
        return listed(dimension)[place]

    return choose(params, current, draw)


def choose(params: TuneParams, current: Overrides, draw: Callable[[str], Any]) -> Overrides:
    """A value by `draw` for each key whose condition holds, those that it depends on before it."""
    chosen: Overrides = {}
    waiting = list(params.space)
    while waiting:
        path = next(p for p in waiting if not {*condition(params.space[p])} & {*waiting})
        waiting.remove(path)
        if all(
            {**current, **chosen}.get(key, MISSING) == value
            for key, value in condition(params.space[path]).items()
        ):
            chosen[path] = draw(path)
    return {path: chosen[path] for path in params.space if path in chosen}


def make_distributions(params: TuneParams) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each key; of a list that of the places in it."""
    found: dict[str, BaseDistribution] = {}
    for path, dimension in params.space.items():
        if not isinstance(dimension, Range):
            found[path] = CategoricalDistribution(range(len(listed(dimension))))
        elif is_whole(dimension):
            found[path] = IntDistribution(int(dimension.low), int(dimension.high), dimension.log)
        else:
            found[path] = FloatDistribution(dimension.low, dimension.high, dimension.log)
    return found


def as_suggested(
    overrides: Overrides, params: TuneParams, current: Overrides
) -> dict[str, Any] | None:
    """The suggestions from which the recipe of `overrides` comes out; None: it is not in the space.

    It is in the space if each key that it must have a value for has one of the space's there, and
    no other key is another than in `current`.
    """
    resolved = {**current, **overrides}
    try:
        point = choose(params, current, lambda path: resolved[path])
    except KeyError:
        return None
    suggested = {path: _place(params.space[path], value) for path, value in point.items()}
    if None in suggested.values() or name_of(point, current) != name_of(overrides, current):
        return None
    return suggested


def _place(dimension: Dimension, value: Any) -> Any:
    if not isinstance(dimension, Range):
        values = listed(dimension)
        same = [i for i, v in enumerate(values) if v == value and type(v) is type(value)]
        return next(iter(same), None)
    if isinstance(value, bool) or not isinstance(
        value, int if is_whole(dimension) else int | float
    ):
        return None
    return value if dimension.low <= value <= dimension.high else None


def from_suggested(params: TuneParams, suggested: Mapping[str, Any]) -> Overrides:
    """The overrides that come out of suggestions."""
    return {
        path: value
        if isinstance(params.space[path], Range)
        else listed(params.space[path])[int(value)]
        for path, value in suggested.items()
    }


def name_of(overrides: Overrides, current: Overrides) -> str:
    """A name that two overrides share if the same recipe comes out of them."""
    changed = {k: v for k, v in overrides.items() if k not in current or current[k] != v}
    return json.dumps(changed, sort_keys=True)


def is_whole(dimension: Range) -> bool:
    """Check for a range of whole numbers."""
    return isinstance(dimension.low, int) and isinstance(dimension.high, int)


def points(
    params: TuneParams, current: Overrides, seed: int, most: int = MAX_POINTS
) -> list[dict[str, Any]] | None:
    """All suggestions that the space holds, in an order of the seed's, each recipe once.

    None where they are more than `most`, or a range of fractions makes them endless.
    """
    places: list[Sequence[Any]] = []
    for dimension in params.space.values():
        if not isinstance(dimension, Range):
            places.append(range(len(listed(dimension))))
        elif is_whole(dimension):
            places.append(range(int(dimension.low), int(dimension.high) + 1))
        else:
            return None
    if math.prod(map(len, places)) > most:
        return None
    found: dict[str, dict[str, Any]] = {}
    for point in product(*places):
        suggested = dict(zip(params.space, point, strict=True))
        values = from_suggested(params, suggested)
        tried = choose(params, current, values.__getitem__)
        found.setdefault(name_of(tried, current), {path: suggested[path] for path in tried})
    shuffled = list(found.values())
    random.Random(seed).shuffle(shuffled)
    return shuffled


def draw_points(
    params: TuneParams, current: Overrides, seed: int, count: int
) -> Iterator[dict[str, Any]]:
    """Yield `count` random suggestions: places in a list and numbers of a range, each evenly."""
    source = random.Random(seed)
    for _ in range(count):
        suggested = {path: _draw(source, dimension) for path, dimension in params.space.items()}
        values = from_suggested(params, suggested)
        tried = choose(params, current, values.__getitem__)
        yield {path: suggested[path] for path in tried}


def _draw(source: random.Random, dimension: Dimension) -> Any:
    if not isinstance(dimension, Range):
        return source.randrange(len(listed(dimension)))
    low, high = dimension.low, dimension.high
    if is_whole(dimension) and not dimension.log:
        return source.randint(int(low), int(high))
    # The smallest and the largest whole number are as likely as those between them.
    half = 0.5 if is_whole(dimension) else 0.0
    if dimension.log:
        drawn = math.exp(source.uniform(math.log(low - half), math.log(high + half)))
    else:
        drawn = source.uniform(low, high)
    return min(max(round(drawn) if is_whole(dimension) else drawn, low), high)


def nearest_first(
    params: TuneParams, point: Mapping[str, Any], untried: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """`untried` in the order of how much each differs from `point`.

    A value of a list differs by 1, of a range by its share of the range; equals stay in order.
    """

    def distance(other: Mapping[str, Any]) -> float:
        return sum(_differences(params, point, other))

    return sorted(untried, key=distance)


def _differences(
    params: TuneParams, one: Mapping[str, Any], other: Mapping[str, Any]
) -> Iterator[float]:
    for path, dimension in params.space.items():
        if path not in one or path not in other:
            yield float((path in one) != (path in other))
        elif not isinstance(dimension, Range):
            yield float(one[path] != other[path])
        elif dimension.log:
            width = math.log(dimension.high / dimension.low)
            yield abs(math.log(one[path] / other[path])) / width
        else:
            yield abs(one[path] - other[path]) / (dimension.high - dimension.low)
