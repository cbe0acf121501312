"""The seconds that each stage took last time: `.reprise/seconds/<stage>`, one number a file."""

import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from pipeline.common.atomic import write_whole

SECONDS = Path(".reprise/seconds")


def read_seconds() -> dict[str, float]:
    """The seconds of each stage's last successful run, as far as this folder has seen one."""
    seconds: dict[str, float] = {}
    for path in SECONDS.glob("[!.]*"):
        try:
            seconds[unquote(path.name)] = float(path.read_text(encoding="utf-8"))
        except ValueError:
            # It is only shown to a person; the next run writes it anew.
            continue
    return seconds


def note_seconds(stage: str, seconds: float) -> None:
    """Keep how long `stage` took, unless it has just noted so itself (`stages.runtime.stage`).

    Several at once don't disturb each other; that it can't be written is no failure.
    """
    path = SECONDS / quote(stage, safe="@ ")
    with suppress(OSError):
        if path.exists() and path.stat().st_mtime > time.time() - seconds:
            return
        SECONDS.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{seconds:.3f}\n")
