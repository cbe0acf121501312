"""The section `tune` of `params.yaml`, and what its search space may hold."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from stages.common.config import Config, Overrides
from stages.common.errors import Problem, UserError

Number = int | float
TUNABLE = ("build.model.", "train.")
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
    **dict.fromkeys(("train.replicas", "train.folds"), "a trial is one training"),
    "train.parallel": "a trial trains in one process",
    "build.model.name": "only the file of the model that it names is a dependency; "
    "try models one by one",
    "train.objective.name": "only the file that it names is a dependency; try them one by one",
}


class Range(Config):
    """The numbers from `low` to `high`, both included; whole ones when both are whole."""

    low: Number
    """The smallest value, included."""
    high: Number
    """The largest value, included."""
    log: bool = False
    """If true, the logarithm is drawn evenly, as suits a learning rate."""

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low above 0, not {self.low}")
        return self


Choice = bool | int | float | str | list[int] | list[float] | None
Choices = Annotated[list[Choice], Field(min_length=2)]


def _tag(values: object) -> str:
    """Which of the two is meant, so that a mistake is told in its terms alone."""
    return "range" if isinstance(values, dict | Range) else "choices"


Values = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")], Discriminator(_tag)
]


class TuneParams(Config):
    """The search for better values."""

    trials: Annotated[int, Field(ge=0, le=1_000_000)]
    """The number of recipes to try; 0: none, train takes the values of this file."""
    epochs: Annotated[int, Field(ge=1, le=1_000_000)]
    """The epochs of each trial."""
    sampler: Literal["tpe", "random", "grid"]
    """The sampler of a trial's values; `grid` goes through all combinations of lists."""
    pruner: Literal["none", "median", "hyperband"]
    """Which trials end early because others were better at that epoch."""
    space: dict[str, Values]
    """The keys to search, by their path under `build.model` or `train`, each with a list of
    values or a range: `{train.optimizer.lr: {low: 1e-4, high: 1e-1, log: true}}`.
    """


def check_space(params: TuneParams, check: Callable[[Overrides], object], watched: str) -> None:
    """Stop unless every value of the space is one that the parameter takes.

    `watched` is the metric by which trials are compared. `check` raises UserError for overrides
    that make no valid recipe. Raises UserError with all that is wrong, at the key in `tune.space`.
    """
    problems: list[Problem] = []
    for path, values in params.space.items():
        key = f"tune.space.{path}"
        fixed = next((name for name in _NOT_TUNABLE if f"{path}.".startswith(f"{name}.")), None)
        if not path.startswith(TUNABLE) or fixed is not None:
            reason = _NOT_TUNABLE.get(fixed or "", "it is neither of the model nor of the training")
            message = f"'{path}' can't be tuned: {reason}"
            problems.append(Problem(message, key=key, allowed=("build.model.*", "train.*")))
            continue
        if f"{path}.".startswith("train.loss.") and watched == "loss":
            message = (
                f"'{path}' can't be tuned: trials are compared by this very loss\n"
                "name accuracy or rmse as train.early_stopping.metric to compare them by that"
            )
            problems.append(Problem(message, key=key))
            continue
        if params.sampler == "grid" and isinstance(values, Range):
            message = f"a grid needs a list of values for '{path}', not a range"
            problems.append(Problem(message, key=key))
            continue
        for value in examples(values):
            try:
                check({path: value})
            except UserError as error:
                problems += [_at(problem, key, path, value) for problem in error.problems]
                break
            except (KeyError, TypeError):
                message = f"there is no parameter '{path}'"
                problems.append(Problem(message, key=key))
                break
    if problems:
        raise UserError(*problems)


def examples(values: Range | list[Any]) -> list[Any]:
    """The values of a list; of a range both ends, which stand for what lies between."""
    return [values.low, values.high] if isinstance(values, Range) else values


def _at(problem: Problem, key: str, path: str, value: object) -> Problem:
    message = f"'{path}' can't be {value!r}: {problem.message}"
    return Problem(message, key, None, problem.allowed, problem.suggestion)
