"""The runs of a stage in a work pool, by Prefect's client: found by their key, or started."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, Log, State, WorkerStatus
from prefect.client.schemas.sorting import FlowRunSort, LogSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling, Crashed

from pipeline.elsewhere.refs import KEY_LENGTH
from pipeline.server.names import BASE

FLOW = "elsewhere"
ENTRYPOINT = "pipeline/elsewhere/flow.py:elsewhere"
PULL_STEPS: list[dict[str, Any]] = [
    {
        "prefect.deployments.steps.set_working_directory": {
            "directory": "{{ $" + BASE + " }}",
        }
    }
]
NUM_LOGS = 200
# A line may reach the server after one that was written later, by another process.
LATE = timedelta(seconds=10)
# What a server that is busy, or being started again, answers; all else is meant.
PASSING = (408, 429, 500, 502, 503, 504)


def is_passing(error: Exception) -> bool:
    """Check whether the same question may be answered a little later."""
    if isinstance(error, httpx.HTTPStatusError | PrefectHTTPStatusError):
        return error.response.status_code in PASSING
    return isinstance(error, httpx.TransportError)


def ensure_deployment(client: SyncPrefectClient, pool: str) -> UUID:
    """The deployment `elsewhere` of that pool; made, or brought up to date, if it has to be."""
    try:
        found = client.read_deployment_by_name(f"{FLOW}/{pool}")
        same = found.work_pool_name == pool and found.entrypoint == ENTRYPOINT
        if same and found.pull_steps == PULL_STEPS:
            return found.id
    except ObjectNotFound:
        pass
    return client.create_deployment(
        client.create_flow_from_name(FLOW),
        pool,
        work_pool_name=pool,
        entrypoint=ENTRYPOINT,
        path=".",
        pull_steps=PULL_STEPS,
        enforce_parameter_schema=False,
        description="One stage of a run that goes on elsewhere. Registered by 'reprise run'.",
        tags=["reprise"],
    )


def find_runs(client: SyncPrefectClient, key: str) -> list[FlowRun]:
    """The runs of that key, the newest first."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[key])),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
    )


def find_going(client: SyncPrefectClient, key: str) -> FlowRun | None:
    """The run of that key which has not ended, if there is one."""
    return next((run for run in find_runs(client, key) if not has_ended(run)), None)


def has_ended(run: FlowRun) -> bool:
    """Check that a run will not go on."""
    return run.state is not None and run.state.is_final()


def start_run(
    client: SyncPrefectClient, pool: str, key: str, parameters: Mapping[str, Any]
) -> FlowRun:
    """A new run of that key; two that ask at once get the same."""
    # By its id, not by a number, which falls when somebody deletes an old run.
    last = next((run.id for run in find_runs(client, key) if has_ended(run)), None)
    return client.create_flow_run_from_deployment(
        ensure_deployment(client, pool),
        parameters=dict(parameters),
        name=f"{parameters['stage']} {key[:8]}{key[KEY_LENGTH:]}".replace("-", " "),
        tags=[key],
        idempotency_key=f"{key}-{last or 0}",
    )


def read_lines(client: SyncPrefectClient, run: UUID, since: datetime | None) -> Sequence[Log]:
    """The lines of a run's log from a little before `since` on, in their order."""
    after = None if since is None else LogFilterTimestamp(after_=since - LATE)
    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]), timestamp=after)
    lines: list[Log] = []
    while True:
        page = client.read_logs(chosen, NUM_LOGS, len(lines), LogSort.TIMESTAMP_ASC)
        lines += page
        if len(page) < NUM_LOGS:
            return lines


def cancel(client: SyncPrefectClient, key: str, message: str) -> list[UUID]:
    """Ask for the end of the runs of that key that have not ended; return them."""
    asked = []
    for run in find_runs(client, key):
        if run.state is None or has_ended(run):
            continue
        began = run.state.is_running() or run.state.is_pending() or run.state.is_cancelling()
        state: State[Any] = Cancelling(message=message) if began else Cancelled(message=message)
        client.set_flow_run_state(run.id, state, force=not began)
        asked.append(run.id)
    return asked


def crash(client: SyncPrefectClient, run: UUID, message: str) -> None:
    """Give a run that has fallen silent its end."""
    client.set_flow_run_state(run, Crashed(message=message), force=True)


def has_worker(client: SyncPrefectClient, pool: str) -> bool:
    """Check that a worker of the pool is at work."""
    return any(
        worker.status == WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(pool)
    )
