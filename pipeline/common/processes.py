"""Finds processes by what they carry in their environment, and ends them.

Those of a run carry `REPRISE_RUN=<id>`: so whoever comes later finds what a killed flow and a
killed supervisor have left behind.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial

import psutil

RUN_VARIABLE = "REPRISE_RUN"
STAGE_VARIABLE = "REPRISE_STAGE"
POLL_SECONDS = 0.1
# After SIGKILL only the kernel can hold a process back.
KILL_SECONDS = 10.0


def find_marked(marks: Mapping[str, str]) -> set[psutil.Process]:
    """The running processes, except this one, that carry all of `marks` in their environment.

    Those of other users can't be looked at and are left out.
    """
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            variables = process.environ()
            if (
                all(variables.get(name) == value for name, value in marks.items())
                and process.pid != os.getpid()
                and is_alive(process)
            ):
                found.add(process)
    return found


def find_by_id(pid: int, started: float | None = None) -> psutil.Process | None:
    """The process of this id if it runs.

    With `started`, when it began, never another that has got the id since.
    """
    try:
        process = psutil.Process(pid)
        # The system keeps the time in steps, and says it relative to its own start.
        same = started is None or abs(process.create_time() - started) < 1.0
    except psutil.Error:
        return None
    return process if same and is_alive(process) else None


def is_alive(process: psutil.Process) -> bool:
    """Check that a process has not ended; a zombie has, and so has one whose id was given anew."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def find_processes(run: str, stage: str | None = None) -> set[psutil.Process]:
    """The running processes of a run, or of one stage of it."""
    marks = {RUN_VARIABLE: run}
    return find_marked(marks if stage is None else {**marks, STAGE_VARIABLE: stage})


def wait_for_end(run: str, timeout_seconds: float) -> bool:
    """Wait until no process of the run is left; False if some still are after the time."""
    deadline = time.monotonic() + timeout_seconds
    while find_processes(run):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def end_run(run: str, grace_seconds: float, stage: str | None = None) -> int:
    """End every process of a run, or of one stage, that no supervisor did; return how many."""
    find = partial(find_processes, run, stage)
    num = len(find())
    end_all(find, grace_seconds)
    return num


def end_all(
    find: Callable[[], set[psutil.Process]],
    grace_seconds: float,
    choose: Callable[[set[psutil.Process], float], set[psutil.Process] | None] | None = None,
) -> set[psutil.Process]:
    """End all that `find` finds, again and again until it finds nothing; return what survives.

    SIGTERM to each once, the grace period, SIGKILL. Of those that run, `choose` says after how
    many seconds whom to tell; None ends the grace period. Without it all are told at once.
    """
    told: set[psutil.Process] = set()
    begin = time.monotonic()
    while (running := find()) and (seconds := time.monotonic() - begin) <= grace_seconds:
        chosen = running if choose is None else choose(running, seconds)
        if chosen is None:
            break
        for process in chosen - told:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        told |= chosen
        time.sleep(POLL_SECONDS)
    begin = time.monotonic()
    while running and time.monotonic() - begin < KILL_SECONDS:
        for process in running:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(POLL_SECONDS)
        running = find()
    return running
