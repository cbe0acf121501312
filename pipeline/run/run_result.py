"""The result of a run: the end of each of its stages."""

from dataclasses import dataclass, field
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from pipeline.metrics.gates import FAIL, Verdict
from pipeline.plan.plan import StagePlan
from pipeline.run.execute import StageEnd
from stages.common.errors import shorten

# After one of these nothing that follows can run.
BROKEN = ("failed", "skipped", "cancelled")
ENDED_WELL = ("ran", "restored", "unchanged")


@dataclass
class RunResult:
    """The end of each stage: 'ran', 'restored', 'unchanged', 'failed', 'skipped' or 'cancelled'.

    `verdicts` are those of the gates on the values of evaluate's metrics, where it ended well.
    """

    plan: list[StagePlan]
    states: dict[str, str] = field(default_factory=dict)
    ends: dict[str, StageEnd] = field(default_factory=dict)
    cancelled: bool = False
    # The number of SIGTERM or SIGINT, if this process has got one.
    signal_number: int | None = None
    # Whether Prefect's server was gone when the stages had ended.
    server_lost: bool = False
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Check whether any stage failed."""
        return "failed" in self.states.values()

    @property
    def failed_gates(self) -> list[str]:
        """A sentence for each gate that failed."""
        return [verdict.sentence() for verdict in self.verdicts if verdict.result == FAIL]

    def as_state(self) -> State[Any]:
        """The end of the flow run in Prefect."""
        if self.cancelled:
            return Cancelled(message="cancelled; every process of the run has ended")
        names: dict[str, list[str]] = {}
        for name, state in self.states.items():
            end = self.ends.get(name)
            why = f" ({shorten(end.mistake)})" if state == "failed" and end and end.mistake else ""
            names.setdefault(state, []).append(f"{name}{why}")
        # Stages that failed come first, then gates: that is what a person has to look at.
        ordered = sorted(names.items(), key=lambda each: each[0] != "failed")
        stages = [f"{state}: {', '.join(each)}" for state, each in ordered]
        place = 1 if self.failed else 0
        message = "; ".join([*stages[:place], *self.failed_gates, *stages[place:]])
        well = not self.failed and not self.failed_gates
        return Completed(message=message) if well else Failed(message=message)
