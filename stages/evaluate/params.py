"""The section `evaluate` of `params.yaml`."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, model_validator

from stages.common.config import Section
from stages.common.errors import Problem, wrong_name


def check_gates(gates: Iterable[str], metrics: Sequence[str]) -> list[Problem]:
    """The gates on metrics that are not computed, which would judge nothing."""
    problems = []
    for name in gates:
        if name not in metrics:
            message = f"there is no '{name}' among evaluate.metrics for the gate to judge"
            wrong = wrong_name(message, name, metrics, f"evaluate.gates.{name}")
            problems.append(replace(wrong, value=None))
    return problems


class Gate(Section):
    """What a metric must reach: at least `minimum`, at most `maximum`.

    `not_worse_by`: against another revision, worse by no more than this, in the metric's units.
    """

    minimum: float | None = None
    maximum: float | None = None
    not_worse_by: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _bound_something(self) -> Self:
        if self.minimum is None and self.maximum is None and self.not_worse_by is None:
            raise ValueError("a gate needs a minimum, a maximum or not_worse_by")
        return self


class EvaluateParams(Section):
    """Which metrics to compute on the test split, and by which columns to slice it (None: all)."""

    metrics: Annotated[list[str], Field(min_length=1)]
    slices: list[str] | None


class GatedEvaluateParams(EvaluateParams):
    """The whole section; `gates` judge a run and change no output: the stage never reads them."""

    gates: dict[str, Gate]
