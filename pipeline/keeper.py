"""A keeper: stays behind when a flow is killed, and says so to Prefect.

A process that was killed can't report itself: its run would stay 'Running' for ever. The keeper
waits for the end of the flow's process (the end of file of a pipe that only the flow holds) and,
under a worker, for the end of the worker, which it answers by ending the flow.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from pipeline.processes import RUN_VARIABLE, end_run, wait_for_end

LOG = Path(".reprise/logs/keeper.log")
# What the flow may take beyond the grace period of its stages to end by itself.
FLOW_SECONDS = 3.0


@contextmanager
def keep(run: str, flow_run_id: str, grace_seconds: float, *, worker: bool) -> Iterator[None]:
    """Have a keeper for this process from now on; a normal end of the block sends it home.

    With `worker`, the parent of this process is the worker whose end must be ours.
    """
    LOG.parent.mkdir(parents=True, exist_ok=True)
    parent = os.getppid() if worker else 0
    # -P: the package as this process has it, not a folder of that name in the working folder.
    command = [sys.executable, "-P", "-m", "pipeline.keeper", run, flow_run_id]
    command += [str(grace_seconds), str(os.getpid()), str(parent)]
    environment = {k: v for k, v in os.environ.items() if k != RUN_VARIABLE}
    theirs, ours = os.pipe()
    with LOG.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    os.close(theirs)
    # Not in a `finally`: after an error the pipe stays open until this process has ended, and
    # the keeper then looks whether Prefect has heard of it.
    yield
    os.write(ours, b".")
    os.close(ours)
    process.wait()


def main() -> None:
    """Wait for the end; then end what is left of the run, and report it."""
    run, flow_run_id, grace, flow_pid, parent_pid = sys.argv[1:]
    grace_seconds = float(grace)
    flow = os.pidfd_open(int(flow_pid))
    watched: list[int] = [0]
    if parent_pid != "0":
        try:
            watched.append(os.pidfd_open(int(parent_pid)))
        except ProcessLookupError:
            _end_flow(flow, grace_seconds)
            watched = [0]
    ready, _, _ = select.select(watched, [], [])
    if 0 not in ready:
        _end_flow(flow, grace_seconds)
    if os.read(0, 1):
        return  # a normal end
    why = "the worker was killed" if 0 not in ready else "the process of the flow was killed"
    report(flow_run_id, f"{why}; its stages have been ended")
    if not wait_for_end(run, grace_seconds):
        end_run(run, grace_seconds)


def _end_flow(flow: int, grace_seconds: float) -> None:
    """SIGTERM, so that the flow ends its stages and reports itself; SIGKILL if it does not."""
    for number, seconds in ((signal.SIGTERM, grace_seconds + FLOW_SECONDS), (signal.SIGKILL, 5.0)):
        try:
            signal.pidfd_send_signal(flow, number)
        except ProcessLookupError:
            return
        if select.select([flow], [], [], seconds)[0]:
            return


def report(flow_run_id: str, message: str) -> None:
    """Give the flow run and its tasks an end in Prefect, unless they have one."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.states import Cancelled, Crashed

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run_id)).state
        if state is None or not state.is_final():
            ended = Cancelled if state is not None and state.is_cancelling() else Crashed
            client.set_flow_run_state(UUID(flow_run_id), ended(message=message), force=True)
        mine = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
        for task_run in client.read_task_runs(flow_run_filter=mine):
            if task_run.state is None or not task_run.state.is_final():
                client.set_task_run_state(task_run.id, Crashed(message=message), force=True)


if __name__ == "__main__":
    main()
