"""The section `evaluate` of `params.yaml`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from stages.common.config import Config
from stages.common.errors import Problem, wrong_name
from stages.model.conformal import Coverage

# What evaluate measures beside `evaluate.metrics` where predictions have intervals or sets.
OF_COVERAGE = COVERAGE, WIDTH, SIZE = ("coverage", "interval_width", "set_size")


def check_calendars(columns: Sequence[str], calendars: Collection[str]) -> list[Problem]:
    """Slices by dates of which the time is no part of what is learned from, nor in the arrays."""
    message = "the column '{}' is a calendar, whose time is left out: no slices by it"
    return [
        Problem(message.format(name), f"evaluate.slices.{index}", name)
        for index, name in enumerate(columns)
        if name in calendars
    ]


def check_gates(
    gates: Mapping[str, "Gate"],
    metrics: Sequence[str],
    coverage: float | None,
    task: str | None = None,
) -> list[Problem]:
    """The gates on metrics that are not computed, which would judge nothing.

    `task` is that of the target, where it is known.
    """
    # Values have intervals, classes sets.
    other = {"regression": SIZE, "classification": WIDTH}.get(task or "")
    problems = []
    for name, gate in gates.items():
        key = f"evaluate.gates.{name}"
        if name == other:
            message = f"there is no {name} in a {task}"
            allowed = tuple(known for known in OF_COVERAGE if known != other)
            problems.append(Problem(message, key, allowed=allowed))
        elif name in OF_COVERAGE and coverage is not None:
            if gate.not_worse_by is not None:
                message = (
                    f"{name} is not compared between revisions: a minimum or maximum judges it"
                )
                problems.append(Problem(message, f"{key}.not_worse_by", str(gate.not_worse_by)))
        elif name not in metrics:
            message = f"there is no '{name}' among evaluate.metrics for the gate to judge"
            if name in OF_COVERAGE:
                message = f"there is no {name} to judge: evaluate.coverage is null"
            wrong = wrong_name(message, name, metrics, key)
            problems.append(replace(wrong, value=None))
    return problems


class Gate(Config):
    """Bounds that a metric must reach."""

    minimum: float | None = None
    """The least value that passes."""
    maximum: float | None = None
    """The largest value that passes."""
    not_worse_by: Annotated[float, Field(ge=0)] | None = None
    """Worse than another revision by no more than this, in the metric's units; `reprise gate`
    judges it.
    """

    @model_validator(mode="after")
    def _bound_something(self) -> Self:
        if self.minimum is None and self.maximum is None and self.not_worse_by is None:
            raise ValueError("a gate needs a minimum, a maximum or not_worse_by")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(
                f"minimum ({self.minimum:g}) is above maximum ({self.maximum:g}): nothing passes"
            )
        return self


class EvaluateParams(Config):
    """Metrics on the test rows."""

    metrics: Annotated[list[str], Field(min_length=1)]
    """Which metrics to compute on the test rows, such as `[accuracy, log_loss]`; the first one
    is that of the slices.
    """
    slices: list[str] | None
    """The columns by which the test rows are sliced; `[]`: by none, null: by all except images
    and dates with `calendar`.
    """
    coverage: Coverage
    """The share of rows whose target lies in the interval around a predicted value, or in the set
    of classes, that each prediction comes with; null: with none.
    """

    @field_validator("metrics")
    @classmethod
    def _once(cls, metrics: list[str]) -> list[str]:
        if doubled := [name for index, name in enumerate(metrics) if name in metrics[:index]]:
            raise ValueError(f"{doubled[0]} is listed twice")
        return metrics


class GatedEvaluateParams(EvaluateParams):
    """Metrics on the test rows, and the gates that they must pass.

    `gates` judge a run and change no output: the stage never reads them.
    """

    gates: dict[str, Gate]
    """The bounds of each metric: `{accuracy: {minimum: 0.95}}`; `{}`: anything.
    `reprise gate` and `reprise run` judge.
    """
