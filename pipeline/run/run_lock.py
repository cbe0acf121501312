"""One run at a time in a working folder; what an earlier one left behind is ended first."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.common.processes import end_run, find_processes, wait_for_end
from pipeline.common.rwlock import mend_rwlock
from stages.common.errors import UserError
from stages.locks import hold, is_free

LOCK = Path(".reprise/run.lock")
WAIT_SECONDS = 1.0


@contextmanager
def hold_folder(
    grace_seconds: float, say: Callable[[str], None], *, wait: bool = False
) -> Iterator[Callable[[str], None]]:
    """Hold the current folder for one run; the kernel lets go when this process ends.

    Gives a function that notes the run's id, before it starts anything. Ends the processes of an
    earlier run that was killed, and mends the lock file that its DVC may have left half written.
    Raises UserError when another run is going and `wait` is False.
    """
    LOCK.parent.mkdir(exist_ok=True)
    with _lock(say, wait=wait) as file:
        left = _read(file).get("run")
        if left is not None:
            _end_left(str(left), grace_seconds, say)
        mend_rwlock(say)
        holder = {"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        _write(file, holder)
        yield lambda run: _write(file, {"run": run, **holder})
        _write(file, {})


def tell_run() -> None:
    """Say on standard error that a run is going in this folder, whose metrics are not whole yet."""
    if not is_free(LOCK):
        with LOCK.open(encoding="utf-8") as file:
            print(f"note: {_describe(_read(file))} is going in this folder", file=sys.stderr)


def _describe(holder: Mapping[str, Any]) -> str:
    return f"a run (process {holder.get('pid', '?')}, since {holder.get('since', '?')})"


def _lock(say: Callable[[str], None], *, wait: bool) -> IO[str]:
    """The lock file, held."""
    file = hold(LOCK)
    if file is None:
        with LOCK.open(encoding="utf-8") as other:
            holder = _read(other)
        who = _describe(holder)
        if not wait:
            raise UserError(
                f"{who} is going in this folder\n"
                "  'reprise run --wait' starts when it has ended; to end it: Ctrl-C there, or "
                f"kill {holder.get('pid', 'PID')}"
            )
        say(f"waiting for {who} in this folder to end")
    while file is None:
        file = hold(LOCK, wait_seconds=WAIT_SECONDS)
    return file


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        content = json.loads(file.read() or "{}")
    except ValueError:
        return {}  # killed while it wrote
    return content if isinstance(content, dict) else {}


def _write(file: IO[str], content: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    json.dump(content, file)
    file.flush()


def _end_left(run: str, grace_seconds: float, say: Callable[[str], None]) -> None:
    """Wait for the supervisors of a killed run to end their work; do it for dead ones."""
    if not find_processes(run):
        return
    say("a run before this one was killed: waiting for what it started to end")
    if not wait_for_end(run, grace_seconds):
        num_ended = end_run(run, grace_seconds)
        say(f"ended {num_ended} processes that it left behind")
