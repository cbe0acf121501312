"""DVC's list of running commands, which a full disk or a kill can leave cut short.

DVC does not write it atomically, and refuses every command while it can't read it.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from stages.common.errors import UserError
from stages.locks import hold

RWLOCK = Path(".dvc/tmp/rwlock")
# Whoever changes the list holds this, as zc.lockfile does it.
RWLOCK_GUARD = Path(".dvc/tmp/rwlock.lock")
# Longer than DVC takes to write the list.
WAIT_SECONDS = 2.0


def mend_rwlock(say: Callable[[str], None]) -> None:
    """Remove the list when it can't be read and nobody needs it any more; say so.

    Raises UserError while a DVC runs in this folder: it holds paths that only the list names.
    """
    if is_whole():
        return
    guard = hold(RWLOCK_GUARD, wait_seconds=WAIT_SECONDS)
    if guard is None:
        raise UserError(_say("another 'dvc' is at work on it: try again when that has ended"))
    with guard:
        if is_whole():
            return
        running = next(_find_dvc(), None)
        if running is not None:
            raise UserError(
                _say(f"process {running} runs in this folder: try again when it has ended")
            )
        RWLOCK.unlink()
    say(f"removed {RWLOCK}, which a killed DVC, or a full disk, had left half written")


def is_whole() -> bool:
    """Check that DVC could read the list, or that there is none."""
    try:
        return isinstance(json.loads(RWLOCK.read_bytes()), dict)
    except FileNotFoundError:
        return True
    except ValueError:
        return False


def _say(why: str) -> str:
    return f"{RWLOCK} is damaged: DVC refuses every command until it is gone\n  {why}"


def _find_dvc() -> Iterator[str]:
    """The running commands of DVC in this folder, such as '123: dvc repro'."""
    here = Path.cwd()
    for process in psutil.process_iter(["cwd", "cmdline", "pid"]):
        words = process.info["cmdline"] or []
        names = {Path(word).name for word in words[:3]}
        is_here = process.info["cwd"] == str(here)
        if is_here and "dvc" in names and process.info["pid"] != os.getpid():
            yield f"{process.info['pid']}: {' '.join(words)}"
