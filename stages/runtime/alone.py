"""One process at a time runs a stage in a clone: a second would remove the work of the first."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common.errors import UserError
from stages.locks import hold
from stages.runtime.outputs import restore, say_missing

LOCKS = Path(".reprise/locks")
# What the processes of a stage that was killed may take to find out and end.
WAIT_SECONDS = 10.0


@contextmanager
def running_alone(stage: str) -> Iterator[None]:
    """Hold `stage` in this clone while the work inside runs.

    Raises UserError where another process still runs it after `WAIT_SECONDS`, with the last outputs
    back in place, and where the lock can't be taken.
    """
    path = LOCKS / f"{stage}.lock"
    try:
        LOCKS.mkdir(parents=True, exist_ok=True)
        lock = hold(path, wait_seconds=WAIT_SECONDS)
    except OSError as error:
        raise UserError(f"cannot lock {path}: {error.strerror or error}") from None
    if lock is None:
        refused = UserError(f"{stage} runs in this clone already, {_describe_holder(path)}")
        # DVC has deleted them before it started this process.
        for note in say_missing(restore(stage)):
            refused.add_note(note)
        raise refused
    with lock:
        lock.truncate(0)
        lock.write(f"{os.getpid()} {platform.node()}\n")
        lock.flush()
        yield


def _describe_holder(path: Path) -> str:
    """Name the process that holds a lock, and what to do about it."""
    number, _, machine = path.read_text(encoding="utf-8").strip().partition(" ")
    wait = "\n  wait until it has ended, or run this one in a clone of its own"
    if machine != platform.node():
        return f"as process {number} of the machine '{machine}'{wait}"
    if Path(f"/proc/{number}").exists() or not Path("/proc").is_dir():
        return f"as process {number}{wait}"
    # A lock goes with the processes that its holder has forked.
    left = f"in a process that process {number} has left behind when it ended"
    return f"{left}\n  'fuser {path}' names it: end it, and run this one again"
