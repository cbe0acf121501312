"""The processes of a run: each carries `REPRISE_RUN=<id>` in its environment.

So whoever comes later finds what a killed flow and a killed leash have left behind.
"""

import contextlib
import os
import time
from collections.abc import Sequence

import psutil

RUN_VARIABLE = "REPRISE_RUN"
STAGE_VARIABLE = "REPRISE_STAGE"
POLL_SECONDS = 0.1


def find_processes(run: str, stage: str | None = None) -> list[psutil.Process]:
    """The living processes of a run, or of one stage of it.

    Those of other users can't be looked at and are left out.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            variables = process.environ()
            if (
                variables.get(RUN_VARIABLE) == run
                and stage in (None, variables.get(STAGE_VARIABLE))
                and process.status() != psutil.STATUS_ZOMBIE
                and process.pid != os.getpid()
            ):
                found.append(process)
    return found


def wait_for_end(run: str, timeout_seconds: float) -> bool:
    """Wait until no process of the run is left; False if some still are after the time."""
    deadline = time.monotonic() + timeout_seconds
    while find_processes(run):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def end_run(run: str, grace_seconds: float, stage: str | None = None) -> int:
    """End every process of a run, or of one stage, that no leash did; return how many there were.

    SIGTERM, the grace period, SIGKILL; again for what they started meanwhile.
    """
    processes = find_processes(run, stage)
    if processes:
        _end(processes, grace_seconds)
        _end(find_processes(run, stage), 0.0)
    return len(processes)


def _end(processes: Sequence[psutil.Process], grace_seconds: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=grace_seconds)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=10.0)
