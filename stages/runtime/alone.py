"""One process at a time runs a stage in a clone: a second would remove the work of the first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.common.errors import UserError
from stages.locks import hold

LOCKS = Path(".reprise/locks")
# What the processes of a stage that was killed may take to find out and end.
WAIT_SECONDS = 10.0


@contextmanager
def running_alone(stage: str) -> Iterator[None]:
    """Hold `stage` in this clone while the work inside runs.

    Raises UserError where another process still runs it after `WAIT_SECONDS`, and where the
    lock can't be written.
    """
    path = LOCKS / f"{stage}.lock"
    try:
        LOCKS.mkdir(parents=True, exist_ok=True)
        lock = hold(path, wait_seconds=WAIT_SECONDS)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    if lock is None:
        holder = path.read_text(encoding="utf-8").strip() or "of an unknown number"
        raise UserError(
            f"{stage} runs in this clone already, as process {holder}\n"
            "  wait until it has ended, or run this one in a clone of its own"
        )
    with lock:
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
