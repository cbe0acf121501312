"""A watchdog: stays behind when a flow is killed, and says so to Prefect.

A process that was killed can't report itself: its run would stay 'Running' for ever. The watchdog
waits for the end of the flow's process (the end of file of a pipe that only the flow holds) and,
under a worker, for the end of the worker, which it answers by ending the flow.
"""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

from pipeline.common.processes import RUN_VARIABLE, end_run, wait_for_end

LOG = Path(".reprise/logs/watchdog.log")
# What the flow may take beyond the grace period of its stages to end by itself.
FLOW_SECONDS = 3.0
# What a watchdog that is sent home may take to go.
HOME_SECONDS = 5.0


@contextmanager
def keep(run: str, grace_seconds: float) -> Iterator[None]:
    """Have a watchdog for the flow run `run` from now on; a normal end of the block sends it home.

    What this process starts meanwhile (git, DVC) carries the run's id. Under a worker, its
    parent, the end of the worker is the run's end.
    """
    LOG.parent.mkdir(parents=True, exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if k != RUN_VARIABLE}
    # By descriptors: a process id may be another's by the time it is looked at.
    watched = [os.pidfd_open(os.getpid())]
    if "PREFECT__FLOW_RUN_ID" in os.environ:
        watched.append(os.pidfd_open(os.getppid()))
    read_end, write_end = os.pipe()
    # -P: the package as this process has it, not a folder of that name in the working folder.
    command = [sys.executable, "-P", "-m", "pipeline.run.watchdog", run, str(grace_seconds)]
    with LOG.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, *map(str, watched)],
            stdin=read_end,
            stdout=log,
            stderr=log,
            env=environment,
            pass_fds=watched,
            start_new_session=True,
        )
    for descriptor in (read_end, *watched):
        os.close(descriptor)
    before = os.environ.get(RUN_VARIABLE)
    os.environ[RUN_VARIABLE] = run
    try:
        yield
    finally:
        os.environ.pop(RUN_VARIABLE)
        if before is not None:
            os.environ[RUN_VARIABLE] = before
    # Not in the `finally`: after an error the pipe stays open until this process has ended, and
    # the watchdog then looks whether Prefect has heard of it.
    with suppress(OSError):
        os.write(write_end, b".")
    os.close(write_end)
    try:
        process.wait(HOME_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Wait for the end; then end what is left of the run, and report it."""
    run, grace_seconds = sys.argv[1], float(sys.argv[2])
    flow, *worker = map(int, sys.argv[3:])
    ready, _, _ = select.select([0, *worker], [], [])
    if 0 not in ready:
        _end_flow(flow, grace_seconds)
    if os.read(0, 1):
        return  # a normal end
    if not wait_for_end(run, grace_seconds):
        end_run(run, grace_seconds)
    why = "the worker was killed" if 0 not in ready else "the process of the flow was killed"
    report(run, f"{why}; everything that the run had started has ended")


def _end_flow(flow: int, grace_seconds: float) -> None:
    """SIGTERM, so that the flow ends its stages and reports itself; SIGKILL if it does not."""
    for number, seconds in ((signal.SIGTERM, grace_seconds + FLOW_SECONDS), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(flow, number)
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
        this_run = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
        for task_run in client.read_task_runs(flow_run_filter=this_run):
            if task_run.state is None or not task_run.state.is_final():
                client.set_task_run_state(task_run.id, Crashed(message=message), force=True)


if __name__ == "__main__":
    main()
