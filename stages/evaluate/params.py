"""The section `evaluate` of `params.yaml`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from stages.common.section import Section


class Gate(Section):
    """What a metric must reach: at least `minimum`, at most `maximum`."""

    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _bound_something(self) -> Self:
        if self.minimum is None and self.maximum is None:
            raise ValueError("a gate needs a minimum or a maximum")
        return self


class EvaluateParams(Section):
    """Which metrics to compute on the test split."""

    metrics: Annotated[list[str], Field(min_length=1)]


class GatedEvaluateParams(Section):
    """The whole section; `gates` judge a run and change no output: the stage never reads them."""

    metrics: Annotated[list[str], Field(min_length=1)]
    gates: dict[str, Gate]

    @model_validator(mode="after")
    def _gate_known_metrics(self) -> Self:
        unknown = sorted(set(self.gates) - set(self.metrics))
        if unknown:
            raise ValueError(f"gates on {unknown}, which evaluate.metrics does not list")
        return self
