"""A stage as a Prefect task: under its name, with what its `meta:` says, in a state of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.states import Cancelled, Completed

from pipeline.common.lockfile import outputs_unchanged
from pipeline.params.stage_meta import Concurrency, StageMeta, limit_of
from pipeline.plan.durations import note_seconds
from pipeline.plan.plan import StagePlan
from pipeline.run.console import Console
from pipeline.run.elsewhere import fetch_inputs, run_elsewhere
from pipeline.run.execute import StageEnd, Supervisors, run_stage
from pipeline.run.run_result import BROKEN, RunResult

SLOT_SECONDS = 5.0
LEASE_SECONDS = 60.0


class StageFailedError(Exception):
    """A stage has failed; what it said stands in its log."""


@dataclass
class StageTask:
    """The task of one stage."""

    plan: StagePlan
    meta: StageMeta
    result: RunResult
    supervisors: Supervisors
    console: Console
    force: bool
    tries: int = 0

    def as_task(self) -> Any:
        """The Prefect task, under the stage's name, with the retries and tags of its meta."""

        def stage() -> State[Any]:
            return self.run()

        return task(
            name=self.plan.name,
            task_run_name=self.plan.name.replace("{", "{{").replace("}", "}}"),
            tags=set(self.meta.tags),
            # A delay of its own: Prefect's can't be interrupted, and would outlive a cancel.
            retries=self.meta.retries,
            retry_condition_fn=lambda *_: not self.supervisors.ended,
            cache_policy=NO_CACHE,
            persist_result=False,
        )(stage)

    def run(self) -> State[Any]:
        """Run the stage, or say why it need not. Raises StageFailedError."""
        name, states = self.plan.name, self.result.states
        broken = [each for each in self.plan.upstream if states.get(each) in BROKEN]
        if broken:
            states[name] = "skipped"
            self.console.ended(name, "skipped", None)
            return Cancelled(name="Skipped", message=f"{', '.join(broken)} did not end well")
        if not self.force and self._is_fresh():
            states[name] = "unchanged"
            self.console.ended(name, "unchanged", None)
            return Completed(name="Unchanged", message="nothing that it depends on has changed")
        if self.tries > 0:
            delay = self.meta.retry_delay_seconds
            self.console.line(
                name, f"try {self.tries + 1} of {self.meta.retries + 1} in {delay:g} s"
            )
            self.supervisors.wait(delay)
        self.tries += 1
        logger = get_run_logger()

        def say(line: str) -> None:
            logger.info("%s", line)
            self.console.line(name, line)

        with _slot(limit_of(name, self.meta), self.supervisors):
            self.console.started(name)
            end = self._run(say)
        self.result.ends[name] = end
        if end.state == "failed" and self.supervisors.ended:
            states[name] = "cancelled"
            self.console.ended(name, "cancelled", end.seconds)
            return Cancelled(message="ended together with its run")
        if end.state == "failed":
            states[name] = "failed"
            self.console.ended(name, "failed", end.seconds)
            raise StageFailedError(f"{name}: {end.reason}")
        if end.state == "ran":
            note_seconds(name, end.seconds)
        states[name] = end.state
        self.console.ended(name, end.state, end.seconds)
        return Completed(name=end.state.capitalize(), message=f"{end.seconds:.1f} s")

    def _run(self, say: Callable[[str], None]) -> StageEnd:
        """Run the stage where it belongs: here, or in a work pool."""
        name, force, limit = self.plan.name, self.force, self.meta.timeout_seconds
        pool = self.plan.work_pool
        if pool is not None:
            return run_elsewhere(
                name,
                pool,
                self.supervisors,
                say,
                force=force,
                workers=self.plan.workers,
                timeout_seconds=limit,
            )
        fetched = fetch_inputs(name, self.supervisors, say, limit)
        if fetched is not None and fetched.state == "failed":
            return fetched
        return run_stage(name, self.supervisors, say, force=force, timeout_seconds=limit)

    def _is_fresh(self) -> bool:
        """Check that a stage is fresh, by the plan or as its inputs have the same bytes again."""
        upstream = self.plan.upstream
        # An import, say, may have brought what no plan could know.
        moved = any(self.result.states.get(name, "unchanged") == "ran" for name in upstream)
        if self.plan.state == "fresh" and not moved:
            return True
        kinds = {reason.kind for reason in self.plan.reasons}
        return kinds <= {"upstream"} and outputs_unchanged(self.plan.name, upstream)


@contextmanager
def _slot(limit: Concurrency | None, supervisors: Supervisors) -> Iterator[None]:
    """Hold a slot of the stage's limit on the server; a killed run's is free a minute later."""
    if limit is None:
        yield
        return
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(limit.name, limit.limit)
    with ExitStack() as held:
        # In turns, so that the end of the run is noticed while it waits; no stage starts then.
        while not supervisors.ended:
            slot = concurrency(
                limit.name, timeout_seconds=SLOT_SECONDS, lease_duration=LEASE_SECONDS
            )
            try:
                held.enter_context(slot)
                break
            except TimeoutError:
                continue
        yield
