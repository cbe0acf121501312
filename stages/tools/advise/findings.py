"""Findings, as they are written to `report.json`; the pages are drawn from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from stages.common.files import rounded
from stages.tools.advise.measure.arms import Axis
from stages.tools.advise.measure.judge import Estimate
from stages.tools.advise.slices import WeakSlice


@dataclass(frozen=True)
class Advice:
    """A change that was measured.

    `change` says it in words or as it stands in params.yaml; `applies` are the keys to write, none
    where it is work for a person. `gain` is in the metric, above 0 better. `cost` in words.
    """

    axis: Axis
    change: str
    gain: float
    low: float
    high: float
    probability: float
    cost: str
    evidence: str
    is_alarm: bool = False
    applies: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sure(self) -> bool:
        """Check whether it is surely better, or a reason to look."""
        return self.low > 0 or self.is_alarm

    def to_json(self) -> dict[str, Any]:
        """The advice as it is written."""
        numbers = {
            name: rounded(getattr(self, name)) for name in ("gain", "low", "high", "probability")
        }
        return {**asdict(self), "sure": self.sure, "applies": dict(self.applies), **numbers}


def advice_of(
    axis: Axis,
    change: str,
    found: Estimate,
    cost: str,
    evidence: str,
    applies: Mapping[str, Any] | None = None,
    *,
    is_alarm: bool = False,
) -> Advice:
    """The advice of an estimate."""
    numbers = found.gain, found.low, found.high, found.probability
    return Advice(axis, change, *numbers, cost, evidence, is_alarm, applies or {})


@dataclass(frozen=True)
class Tried:
    """An axis as a whole: how many changes were tried there, on one fold and on all of them.

    `best` is the best of the latter; none of these gains more than `most`, as far as an interval
    says.
    """

    axis: Axis
    num_changes: int
    num_on_all_folds: int
    best: str
    gain: float
    low: float
    high: float
    most: float


@dataclass(frozen=True)
class Findings:
    """All that was found out.

    `advice` are the changes that were measured at length: alarms, those that are surely better, the
    largest gain first, and those that may be no better; `axes` what was tried beside, `slices` the
    rows on which the recipe is worst, of which no gain is known. `value` is
    the metric of the recipe as it is, `luck` the standard deviation of it between seeds,
    `detectable` the gain from which on this budget tells it from luck; None is not known.
    """

    metric: str
    less_is_better: bool
    model: str
    num_rows: int
    num_folds: int
    num_repeats: int
    share: float
    screened_share: float
    budget_seconds: float
    seconds: float
    value: float | None
    luck: float | None
    detectable: float | None
    train_loss: float | None
    validation_loss: float | None
    advice: Sequence[Advice]
    axes: Sequence[Tried]
    curve: Mapping[str, Any] | None
    slices: Sequence[WeakSlice]
    num_suspects: int
    num_untried: int
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """The content of `report.json`."""
        content = asdict(self)
        numbers = ("value", "luck", "detectable", "train_loss", "validation_loss", "seconds")
        known = {name: getattr(self, name) for name in numbers}
        content |= {name: None if v is None else rounded(v) for name, v in known.items()}
        content["advice"] = [each.to_json() for each in self.advice]
        of_slice = ("value", "low", "high", "whole")
        content["slices"] = [
            {**asdict(each), **{name: rounded(getattr(each, name)) for name in of_slice}}
            for each in self.slices
        ]
        return content
