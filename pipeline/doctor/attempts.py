"""The stages that have begun and not ended well, as they have noted it (`stages.runtime.attempt`).

And how far a training had come: its checkpoints are named by epoch and step.
"""

import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.scheduled.shared_cache import CHECKPOINTS
from stages.common.errors import UserError
from stages.common.files import md5
from stages.common.params import PARAMS
from stages.runtime.attempt import ATTEMPTS, count_kills

# The system keeps the time at which a process began in steps.
START_SECONDS = 5.0
# Whose message says all there is to say.
OWN = ("UserError", "DivergedError", "SystemExit", "KeyboardInterrupt")


@dataclass(frozen=True)
class Attempt:
    """A stage's last attempt: the facts that it has noted, and whether it still runs."""

    path: Path
    stage: str
    state: str
    started: float
    facts: dict[str, Any]

    @property
    def text(self) -> str:
        """The error that it ended in, and its notes."""
        errors = self.facts.get("errors") or []
        lines = [
            error["message"] if error["type"] in OWN else f"{error['type']}: {error['message']}"
            for error in errors
        ]
        return "\n".join([*lines, *(self.facts.get("notes") or [])])

    @property
    def is_here(self) -> bool:
        """Check whether this machine has noted it: a shared disk has those of others too."""
        return bool(self.facts.get("host", platform.node()) == platform.node())

    @property
    def is_running(self) -> bool:
        """Check whether it runs, as far as that can be told: one on another machine may."""
        return self.state == "running" and (not self.is_here or self.is_alive)

    @property
    def is_alive(self) -> bool:
        """Check whether the process that has noted it still runs, and not another of its number.

        Of one on another machine the number says nothing.
        """
        if not self.is_here:
            return False
        try:
            process = psutil.Process(int(self.facts["pid"]))
            began = process.create_time()
            is_running = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, KeyError, ValueError):
            return False
        return bool(is_running and began <= self.started + START_SECONDS)

    @property
    def is_of_now(self) -> bool:
        """Check whether `params.yaml` is still what it was."""
        noted = self.facts.get("params")
        return noted is None or not PARAMS.is_file() or md5(PARAMS) == noted

    @property
    def kills(self) -> int:
        """The processes that the system has killed for want of memory since it began."""
        before, now = self.facts.get("oom_kills"), count_kills()
        return 0 if before is None or now is None else max(0, now - before)

    def forget(self) -> str:
        """Remove the record. Raises UserError where it is that of a later attempt by now."""
        now = _read(self.path)
        if now is not None and now.started != self.started:
            raise UserError(f"{self.stage} has begun again meanwhile")
        self.path.unlink(missing_ok=True)
        return f"forgot the attempt of {self.stage}"


def read_attempts() -> Iterator[Attempt]:
    """The attempts there are, the last one first; a record that can't be read is none."""
    found = [attempt for path in ATTEMPTS.glob("[!.]*.json") if (attempt := _read(path))]
    yield from sorted(found, key=lambda attempt: -attempt.started)


def _read(path: Path) -> Attempt | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        stage, state = str(facts["stage"]), str(facts["state"])
        return Attempt(path, stage, state, float(facts["started"]), facts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest_checkpoint(since: float) -> str:
    """The place at which a training resumes, in words; '' where nothing was kept since then."""
    files = [p for p in CHECKPOINTS.glob("*/*-*-*.p*t") if p.stat().st_mtime >= since]
    names = sorted(path.name for path in files)
    if not names:
        return ""
    epochs, steps = (int(part) for part in names[-1].split("-")[:2])
    return f"after epoch {epochs}" + (f" and {steps} steps" if steps else "")


def ago(seconds: float) -> str:
    """A time that has passed, roughly, in words."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            number = round(seconds / size)
            return f"{number} {name}{'s' if number > 1 else ''} ago"
    return "just now"


def since(moment: float) -> str:
    """The time since a moment, in words."""
    return ago(time.time() - moment)
