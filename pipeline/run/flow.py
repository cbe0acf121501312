"""The pipeline as a Prefect flow: `reprise run` and every deployment come through here.

One task a stage, under the stage's name, each in a state of its own at the end: Ran, Restored
(from DVC's cache), Unchanged, Failed, or Skipped because a stage before it failed. When all have
ended, `evaluate.gates` judge the values of evaluate's metrics; a gate that fails makes the run
Failed and takes nothing back. DVC is the only cache: Prefect keeps no results.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, Queue
from types import FrameType
from typing import Any, NoReturn

import httpx
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Failed
from prefect.utilities.annotations import allow_failure

from pipeline.common.lockfile import keep_order, locked_stages
from pipeline.metrics.gates import EVALUATE, Verdict, judge_values, read_gates
from pipeline.metrics.metrics import read_metrics
from pipeline.params.stage_meta import StageMeta
from pipeline.plan.plan import StagePlan, make_plan
from pipeline.run.advice_task import AdviceAsked, run_advice
from pipeline.run.artifacts import publish_plan, publish_results
from pipeline.run.console import Console
from pipeline.run.execute import Supervisors, read_grace_seconds
from pipeline.run.run_lock import hold_folder
from pipeline.run.run_plan import RunPlan, plan_run
from pipeline.run.run_result import ENDED_WELL, RunResult
from pipeline.run.server_contact import POLL_SECONDS, Contact
from pipeline.run.stage_task import StageTask
from pipeline.run.watchdog import keep
from stages.common.errors import UserError


def run_flow(
    stages: Sequence[str],
    *,
    force: bool,
    parallel: int,
    wait: bool,
    console: Console,
    edit: Callable[[], None] | None,
    on_server_lost: Callable[[RunResult], NoReturn],
    advice: AdviceAsked | None = None,
) -> RunResult:
    """Run stages in the current folder as a flow run of its own; see `run_pipeline`.

    `edit` may change files once nothing else goes on in the folder. `on_server_lost` ends this
    process once the stages have ended and the server is gone for good: Prefect would try for
    minutes to report to it. Raises UserError as `plan_run` does, and for another run in this folder
    where that is not to `wait` for, without a trace on the server.
    """
    results: list[RunResult] = []
    mistakes: list[UserError] = []

    @flow(name="reprise", persist_result=False)
    def run_all(stages: list[str], force: bool, parallel: int) -> State[Any]:  # noqa: FBT001
        console.note(f"run {flow_run.name}: {flow_run.ui_url}")
        note_run(str(flow_run.id))
        with keep(str(flow_run.id), read_grace_seconds()):
            try:
                if edit is not None:
                    edit()
                ready = planned or plan_run(stages, console.note, force=force)
            except UserError as error:
                mistakes.append(error)
                return Failed(message=str(error))
            results.append(
                _run_planned(
                    ready, console, advice, force=force, parallel=parallel, by_signals=True
                )
            )
        if results[0].server_lost:
            on_server_lost(results[0])
        return results[0].as_state()

    with hold_folder(read_grace_seconds(), console.note, wait=wait) as note_run:
        planned = None
        if edit is None:
            planned = plan_run(stages, console.note, force=force)
        else:
            make_plan(stages)  # a name that is no stage's can't be mended by the edit
        try:
            state = run_all(list(stages), force, parallel, return_state=True)
        except httpx.TransportError:
            if results:
                on_server_lost(results[0])
            raise
        if mistakes:
            raise mistakes[0]
        if not results:
            state.result(raise_on_failure=True)
        return results[0]


def run_pipeline(
    stages: Sequence[str], *, force: bool, parallel: int, advice: AdviceAsked | None = None
) -> RunResult:
    """Run the stages that are stale, as tasks of the current flow run, in the current folder.

    `stages` are run with what they need; none means all. `force` runs them even when fresh.
    `advice` is measured when all stages ended well. A watchdog must be there.
    Raises UserError before anything runs: as `plan_run` does, and for another run in this folder.
    """
    console = Console(live=False)
    with hold_folder(read_grace_seconds(), console.note) as note_run:
        note_run(str(flow_run.id))
        planned = plan_run(stages, console.note, force=force)
        return _run_planned(planned, console, advice, force=force, parallel=parallel)


@contextmanager
def _signals_that_cancel(supervisors: Supervisors, *, wanted: bool) -> Iterator[list[int]]:
    """The numbers of SIGTERM or Ctrl-C that have come meanwhile, if wanted.

    Any ends what runs, within the grace period; Prefect would call the run Crashed.
    """
    told: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        # Not in this thread, which may hold the lock that this takes.
        threading.Thread(target=supervisors.end_all, daemon=True).start()

    numbers = (signal.SIGTERM, signal.SIGINT) if wanted else ()
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_planned(
    planned: RunPlan,
    console: Console,
    advice: AdviceAsked | None,
    *,
    force: bool,
    parallel: int,
    by_signals: bool = False,
) -> RunResult:
    """Run the stages; `by_signals`: SIGTERM and Ctrl-C cancel them, as a wish in Prefect does.

    Else they are the worker's, which Prefect answers itself.
    """
    supervisors = Supervisors(str(flow_run.id))
    contact = Contact(console)
    plan = planned.plan
    _publish(partial(publish_plan, plan), console)
    before = locked_stages()
    result = RunResult(plan)
    with console.shown(plan):
        try:
            with _signals_that_cancel(supervisors, wanted=by_signals) as told:
                _run_stages(
                    result,
                    planned.metas,
                    supervisors,
                    console,
                    contact,
                    told,
                    force=force,
                    parallel=parallel,
                )
                if advice is not None and not result.failed and not result.cancelled:
                    run_advice(advice, supervisors, console)
            result.signal_number = told[0] if told else None
            result.cancelled = result.cancelled or bool(told)
        finally:
            supervisors.end_all()
    keep_order([each.name for each in plan], before)
    result.verdicts = judge_run(result)
    result.server_lost = not contact.is_there()
    if not result.server_lost:
        _publish(partial(publish_results, result), console)
    return result


def judge_run(result: RunResult) -> list[Verdict]:
    """The gates' results for this run: none where evaluate has no metrics of it.

    A stage that is unchanged has; one that was not asked for, or did not end well, has not.
    """
    if result.cancelled or result.states.get(EVALUATE) not in ENDED_WELL:
        return []
    return judge_values(read_gates(), read_metrics().get(EVALUATE, {}))


def _publish(publish: Callable[[], None], console: Console) -> None:
    """Show something in Prefect; what it says is no reason to give up what the stages did."""
    try:
        publish()
    except (httpx.HTTPError, PrefectException) as error:
        console.note(f"Prefect's server did not take the plan or the results: {error}")


def _run_stages(
    result: RunResult,
    metas: dict[str, StageMeta],
    supervisors: Supervisors,
    console: Console,
    contact: Contact,
    told: list[int],
    *,
    force: bool,
    parallel: int,
) -> None:
    """Start each stage when those before it have ended, at most `parallel` at a time."""
    waiting = {each.name: each for each in result.plan}
    futures: dict[str, PrefectFuture[Any]] = {}
    running: set[str] = set()
    ended: Queue[str] = Queue()
    polled = time.monotonic()
    while waiting or running:
        # By tasks, not by states: a stage that failed may be about to be tried again.
        unfinished = waiting.keys() | running
        ready = [each for each in waiting.values() if unfinished.isdisjoint(each.upstream)]
        # What runs in a work pool takes no processor here.
        pools = {each.name: each.work_pool for each in result.plan}
        free = parallel - sum(pools[name] is None for name in running)
        here = [each for each in ready if each.work_pool is None][:free]
        for each in [each for each in ready if each.work_pool is not None or each in here]:
            del waiting[each.name]
            running.add(each.name)
            body = StageTask(each, metas[each.name], result, supervisors, console, force)
            before = [allow_failure(futures[name]) for name in _shown_before(each, result)]
            future = body.as_task().submit(wait_for=before)
            future.add_done_callback(partial(_note_end, ended, each.name))
            futures[each.name] = future
        if time.monotonic() - polled > POLL_SECONDS:
            polled = time.monotonic()
            result.cancelled = result.cancelled or bool(told) or contact.is_cancelled()
            if result.cancelled:
                waiting.clear()
                supervisors.end_all()
        with suppress(Empty):
            name = ended.get(timeout=POLL_SECONDS)
            running.discard(name)
            # Without a state its task has ended without running it: Prefect itself refused.
            result.states.setdefault(name, "failed")


def _shown_before(plan: StagePlan, result: RunResult) -> list[str]:
    """The stages that a task is drawn after: those upstream, or what failed before a skipped one.

    Prefect lets no task follow one that ended as Cancelled, as the skipped do.
    """
    by_name = {each.name: each for each in result.plan}
    names: list[str] = []
    for name in plan.upstream:
        if result.states.get(name) == "skipped":
            names += _shown_before(by_name[name], result)
        elif name in by_name:
            names.append(name)
    return list(dict.fromkeys(names))


def _note_end(ended: Queue[str], name: str, _future: PrefectFuture[Any]) -> None:
    ended.put(name)
