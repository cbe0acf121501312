"""How the stages of a run ended."""

from dataclasses import dataclass, field
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from pipeline.execute import StageEnd
from pipeline.plan import StagePlan

# After one of these nothing that follows can run.
BROKEN = ("failed", "skipped", "cancelled")


@dataclass
class Outcome:
    """How each stage ended: 'ran', 'restored', 'unchanged', 'failed', 'skipped' or 'cancelled'."""

    plan: list[StagePlan]
    states: dict[str, str] = field(default_factory=dict)
    ends: dict[str, StageEnd] = field(default_factory=dict)
    cancelled: bool = False

    @property
    def failed(self) -> bool:
        """Whether any stage failed."""
        return "failed" in self.states.values()

    def as_state(self) -> State[Any]:
        """The end of the flow run in Prefect."""
        if self.cancelled:
            return Cancelled(message="cancelled; every process of the run has ended")
        names: dict[str, list[str]] = {}
        for name, state in self.states.items():
            names.setdefault(state, []).append(name)
        message = "; ".join(f"{state}: {', '.join(stages)}" for state, stages in names.items())
        return Failed(message=message) if self.failed else Completed(message=message)
