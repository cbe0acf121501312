"""The section `tune` of `params.yaml`, and what its search space may hold."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from stages.common.config import MAX_COUNT, MAX_NUMBER, Config, MissingKeyError, Overrides, Value
from stages.common.errors import Problem, UserError, shorten

Number = int | float
TUNABLE = ("build.model.", "train.")
SHOWN = tuple(f"{start}*" for start in TUNABLE)
_NOT_TUNABLE = {
    "train.class_weights": "losses that are weighed differently can't be compared",
    "train.early_stopping.metric": "trials are compared by it",
    "train.dataset.num_workers": "it changes no result",
    "train.epochs": "the epochs of a trial are tune.epochs",
    **dict.fromkeys(
        ("train.calibration.temperature", "train.calibration.threshold"),
        "a trial is judged before anything is calibrated",
    ),
    "train.swa": "a trial is without it: it has not the epochs that would be averaged",
    **dict.fromkeys(("train.replicas", "train.folds", "train.ensemble"), "a trial is one training"),
    "train.parallel": "a trial trains in one process",
    "train.packed": "it is how trials are trained, and changes the last bits alone",
    "build.model.name": "only the file that it names is a dependency; try models one by one",
    "train.objective.name": "only the file that it names is a dependency; try them one by one",
}

Choices = Annotated[list[Value], Field(min_length=2)]


class Range(Config):
    """The numbers from `low` to `high`, both included; whole ones when both are whole."""

    low: Number
    """The smallest value, included."""
    high: Number
    """The largest value, included."""
    log: bool = False
    """If true, the logarithm is drawn evenly, as suits a learning rate."""
    when: Annotated[dict[str, Value], Field(min_length=1)] | None = None
    """The values of other keys with which alone this one is tried, such as
    `{train.optimizer.name: SGD}`; null: always.
    """

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low above 0, not {self.low}")
        return self


class ConditionalChoices(Config):
    """A list of values that is tried only where other keys have certain values."""

    values: Choices
    """The values to try."""
    when: Annotated[dict[str, Value], Field(min_length=1)]
    """The values of other keys with which alone this one is tried, such as
    `{train.optimizer.name: SGD}`.
    """

    @model_validator(mode="before")
    @classmethod
    def _need_condition(cls, tree: object) -> object:
        values = tree.get("values") if isinstance(tree, dict) and len(tree) == 1 else None
        if isinstance(values, list):
            said = "values are for a condition, 'when'; without one the list itself stands there"
            raise ValueError(f"{said}: {shorten(values)}")
        return tree


def _tag(values: object) -> str | None:
    """The one of the three that is meant, so that a mistake is told in its terms alone."""
    if isinstance(values, ConditionalChoices) or (isinstance(values, dict) and "values" in values):
        return "conditional"
    if isinstance(values, dict | Range):
        return "range"
    return "choices" if isinstance(values, list) else None


Values = Annotated[
    Annotated[Range, Tag("range")]
    | Annotated[ConditionalChoices, Tag("conditional")]
    | Annotated[Choices, Tag("choices")],
    Discriminator(
        _tag,
        custom_error_type="no_dimension",
        custom_error_message="a key has a list of values or a range: [1, 2] or {low: 1, high: 2}",
    ),
]
Dimension = Range | ConditionalChoices | list[Any]


class ModelSize(Config):
    """The size of the model, as a second reason to pick a trial."""

    of: Literal["weights", "multiply_adds"]
    """The size that is counted: the numbers of the model's file, or the products of numbers that
    the prediction of a row takes.
    """
    most: Annotated[int, Field(ge=1)] | None
    """The size above which a recipe is not tried; null: no limit."""
    within: Annotated[float, Field(ge=0, le=MAX_NUMBER)]
    """By how much the value of the trial that is picked may be worse than the best one's, in the
    metric's own units: of these trials it is the smallest. 0: the best.
    """


class TuneParams(Config):
    """The search for better values."""

    trials: Annotated[int, Field(ge=0, le=1_000_000)]
    """The number of recipes to try; 0: none, train takes the values of this file."""
    batch: Annotated[int, Field(ge=1, le=10_000)]
    """The trials that are asked for and trained at once; the sampler learns from those of earlier
    batches.
    """
    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    """The epochs of each trial."""
    seconds: Annotated[float, Field(gt=0, le=MAX_COUNT)] | None
    """The seconds of training after which no other batch begins, so that the machine decides the
    number of trials; null: no limit.
    """
    patience: Annotated[int, Field(ge=1, le=1_000_000)] | None
    """The number of trials without a better one after which no other batch begins; null: no
    limit.
    """
    sampler: Literal["auto", "tpe", "gp", "cmaes", "random", "grid"]
    """The sampler of a trial's values; `grid` goes through all combinations of lists. `auto`: `gp`
    in a small space of numbers, else `tpe`.
    """
    pruner: Literal["none", "median", "hyperband", "halving"]
    """The trials that end early because others were better at that epoch; `halving` keeps a third
    of each batch after 1, 3, 9 and 27 % of the epochs.
    """
    portfolio: bool
    """If true, the first trials are recipes that are known to be good for this model and kind of
    data.
    """
    keep_scores: Annotated[int, Field(ge=0, le=1000)]
    """The number of the best trials whose validation scores are kept, to propose an ensemble of
    them; 0: none.
    """
    model_size: ModelSize | None
    """The rule by which a smaller model is picked in place of the best: `{of: weights, most: 50000,
    within: 0.002}`. null: the size does not count.
    """
    space: dict[str, Values]
    """The keys to search, by their path under `build.model` or `train`, each with a list of
    values or a range: `{train.optimizer.lr: {low: 1e-4, high: 1e-1, log: true}}`.
    """


def condition(dimension: Dimension) -> dict[str, Any]:
    """The values of other keys with which alone a key is tried; none: always."""
    return {} if isinstance(dimension, list) else dict(dimension.when or {})


def listed(dimension: Dimension) -> list[Any]:
    """The values of a list, with a condition or without; of a range both ends."""
    if isinstance(dimension, Range):
        return [dimension.low, dimension.high]
    return dimension.values if isinstance(dimension, ConditionalChoices) else dimension


def check_space(params: TuneParams, check: Callable[[Overrides], object], watched: str) -> None:
    """Stop unless every value of the space is one that the parameter takes.

    `watched` is the metric by which trials are compared. `check` raises UserError for overrides
    that make no valid recipe. Raises UserError with all that is wrong, at the key in `tune.space`.
    """
    problems: list[Problem] = []
    for path, values in params.space.items():
        key = f"tune.space.{path}"
        if message := find_untunable(path, watched):
            allowed = () if path.startswith(TUNABLE) else SHOWN
            problems.append(Problem(message, key=key, allowed=allowed))
            continue
        if params.sampler == "grid" and isinstance(values, Range):
            message = f"a grid needs a list of values for '{path}', not a range"
            problems.append(Problem(message, key=key))
            continue
        if found := _check_condition(path, params) or _check_wanted(path, params, check):
            problems += found
            continue
        for value in listed(values):
            try:
                _check_value({**condition(values), path: value}, params, check)
            except UserError as error:
                problems += [_at(problem, key, path, value) for problem in error.problems]
                break
            except MissingKeyError as error:
                problems.append(error.problem(key))
                break
    if problems:
        raise UserError(*problems)


def find_untunable(path: str, watched: str) -> str:
    """The reason why `path` can't be tuned, in words; nothing if it can."""
    fixed = next((name for name in _NOT_TUNABLE if f"{path}.".startswith(f"{name}.")), None)
    if not path.startswith(TUNABLE) or fixed is not None:
        reason = _NOT_TUNABLE.get(fixed or "", "it is neither of the model nor of the training")
        return f"'{path}' can't be tuned: {reason}"
    if f"{path}.".startswith("train.loss.") and watched == "loss":
        return (
            f"'{path}' can't be tuned: trials are compared by this very loss\n"
            "name accuracy or rmse as train.early_stopping.metric to compare them by that"
        )
    return ""


def _check_condition(path: str, params: TuneParams) -> list[Problem]:
    """The problem of a condition that waits for itself, or for a value that is never tried."""
    key, seen = f"tune.space.{path}.when", [path]
    for name in seen:
        if path in (others := [*condition(params.space[name])] if name in params.space else []):
            return [Problem(f"'{path}' would wait for its own value", key=key)]
        seen += [other for other in others if other not in seen]
    for name, value in condition(params.space[path]).items():
        dimension = params.space.get(name)
        if not name.startswith(TUNABLE):
            message = f"a condition is on a key of the model or of the training, not on '{name}'"
            return [Problem(message, key=f"{key}.{name}", value=shorten(value), allowed=SHOWN)]
        if isinstance(dimension, Range):
            message = f"a condition needs a list of values for '{name}', not a range"
            return [Problem(message, key=f"{key}.{name}")]
        if dimension is not None and value not in listed(dimension):
            tried = tuple(map(shorten, listed(dimension)))
            message = f"'{name}' is never {_said(value)} in this space"
            return [Problem(message, key=f"{key}.{name}", value=shorten(value), allowed=tried)]
    return []


def _check_wanted(
    path: str, params: TuneParams, check: Callable[[Overrides], object]
) -> list[Problem]:
    """The problems of the values that a condition waits for: no recipe has them."""
    wanted, key = condition(params.space[path]), f"tune.space.{path}.when"
    try:
        _check_value(wanted, params, check)
    except UserError as error:
        # What is wrong with the values of the key itself is said there.
        return [_at_condition(p, key, wanted) for p in error.problems if p.key != path]
    except MissingKeyError as error:
        return [error.problem(f"{key}.{error.path}", wanted.get(error.path))]
    return []


def _at_condition(problem: Problem, key: str, wanted: Overrides) -> Problem:
    named = (name for name in wanted if f"{problem.key}.".startswith(f"{name}."))
    name = next(named, next(iter(wanted)))
    message = f"'{name}' can't be {_said(wanted[name])}: {problem.message}"
    return replace(problem, message=message, key=f"{key}.{name}", value=shorten(wanted[name]))


def _check_value(
    overrides: Overrides, params: TuneParams, check: Callable[[Overrides], object]
) -> None:
    """Raise as `check` does, unless the keys that are tried only with `overrides` mend it."""
    added = dict(overrides)
    for path, values in params.space.items():
        needed = condition(values)
        if path not in added and needed and needed.items() <= overrides.items():
            added[path] = listed(values)[0]
    problems: list[Problem] = []
    for tried in (overrides, added):
        try:
            check(tried)
        except UserError as error:
            problems = error.problems
        else:
            return
    raise UserError(*(_say_in_file(problem, added) for problem in problems))


def _say_in_file(problem: Problem, tried: Overrides) -> Problem:
    """The problem of an argument that `params.yaml` itself has beside another name, told so."""
    name = str(problem.key).rpartition(".")[2]
    unknown = (f"unknown key '{name}'", f"takes no '{name}'")
    if problem.key not in tried and problem.message.endswith(unknown):
        remedy = f"take {problem.key} out of params.yaml; tune.space may have it, with 'when'"
        return replace(problem, message=f"{problem.message}\n{remedy}")
    return problem


def _at(problem: Problem, key: str, path: str, value: object) -> Problem:
    message = f"'{path}' can't be {_said(value)}: {problem.message}"
    return replace(problem, message=message, key=key, value=None)


def _said(value: object) -> str:
    """A value in a sentence: a text in quotes, all else as YAML has it."""
    return f"'{value}'" if isinstance(value, str) else shorten(value)
