"""The record of a stage that has begun and not ended well: `.reprise/attempts/<stage>.json`.

`reprise doctor` reads it. A stage that is killed (by the system, for want of memory) can write
nothing any more: its record still says that it runs, and no process of that number does, on the
machine that it names. A stage that ends well removes its record.
"""

import os
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stages.common.addresses import hide_secrets, name_objects
from stages.common.errors import UserError, format_problem
from stages.common.files import md5, write_json
from stages.common.params import PARAMS
from stages.common.yamlfile import with_location

ATTEMPTS = Path(".reprise/attempts")
# Settings of the machine, none of which is a secret; a wrong one is a cause by itself.
VARIABLES = (
    *("REPRISE_DEVICE", "REPRISE_THREADS", "REPRISE_DATA", "REPRISE_AT_ONCE"),
    *("PET_NPROC_PER_NODE", "PET_NNODES"),
)
# How many processes the system has killed here for want of memory.
EVENTS = Path("/sys/fs/cgroup/memory.events")
NUM_FRAMES = 12
MAX_TEXT = 4000


@contextmanager
def noted_attempt(stage: str) -> Iterator[None]:
    """Keep a record of `stage` while the work inside runs, and after it unless that ends well.

    That it can't be written is no failure of the stage.
    """
    facts = _begin(stage)
    _write(stage, facts)
    try:
        yield
    except BaseException as error:
        _write(stage, {**facts, **_end(error)})
        raise
    with suppress(OSError):
        _path(stage).unlink(missing_ok=True)


def count_kills() -> int | None:
    """The processes of this control group that the system has killed for want of memory."""
    with suppress(OSError, ValueError):
        for line in EVENTS.read_text(encoding="utf-8").splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return None


def _begin(stage: str) -> dict[str, Any]:
    return {
        "stage": stage,
        "state": "running",
        "host": platform.node(),
        "pid": os.getpid(),
        "started": time.time(),
        "params": _digest(),
        "oom_kills": count_kills(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _digest() -> str | None:
    with suppress(OSError):
        return md5(PARAMS)
    return None


def _end(error: BaseException) -> dict[str, Any]:
    """The end: the error, and those that it came of, as text; where the first was raised."""
    state = "failed"
    if isinstance(error, SystemExit):
        state = "stopped"
    elif isinstance(error, KeyboardInterrupt):
        state = "interrupted"
    causes = _chain(error)
    keys = [p.key for e in causes if isinstance(e, UserError) for p in e.problems if p.key]
    frames = traceback.extract_tb(causes[-1].__traceback__)[-NUM_FRAMES:]
    return {
        "state": state,
        "ended": time.time(),
        "code": str(error.code) if isinstance(error, SystemExit) else None,
        "errors": [{"type": type(e).__name__, "message": _clean(_message(e))} for e in causes],
        "notes": [_clean(note) for note in getattr(error, "__notes__", [])],
        "keys": list(dict.fromkeys(keys)),
        "frames": [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames],
    }


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and what each was raised from, the first of all last."""
    found: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in found:
        found.append(at)
        at = at.__cause__
    return found


def _message(error: BaseException) -> str:
    """The error's text; of a user's mistake with the lines to edit."""
    if isinstance(error, UserError):
        lines = [format_problem(with_location(problem)) for problem in error.problems]
        return name_objects("\n".join(lines))
    return name_objects(str(error))


def _clean(text: str) -> str:
    """The text without what may be a password in an address, at a length that can be shown."""
    hidden = hide_secrets(text.encode("utf-8", "replace").decode("utf-8"))
    return hidden if len(hidden) <= MAX_TEXT else f"{hidden[:MAX_TEXT]}…"


def _path(stage: str) -> Path:
    return ATTEMPTS / f"{stage}.json"


def _write(stage: str, facts: dict[str, Any]) -> None:
    with suppress(OSError):
        ATTEMPTS.mkdir(parents=True, exist_ok=True)
        temporary = ATTEMPTS / f".{stage}"
        write_json(temporary, facts)
        temporary.replace(_path(stage))
