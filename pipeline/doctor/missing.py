"""Outputs that `dvc.lock` names and that are not here, stage by stage.

DVC removes the outputs of a stage before it starts it. The stage keeps its record from the moment
on at which its libraries are loaded: one that is killed before leaves nothing but this gap.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.common.lockfile import DVC_LOCK, read_lock
from pipeline.doctor.places import stage_is_running
from pipeline.plan.durations import read_seconds
from stages.common.counts import counted
from stages.common.errors import UserError
from stages.locks import is_free

MAX_SHOWN = 3
AGAIN = (
    "dvc repro   # has them from the cache or makes them anew; a training resumes from its last "
    "checkpoint"
)


@dataclass(frozen=True)
class Missing:
    """The outputs of a stage that are not here.

    `removed`: the stage has ended in this clone before, or git has one of them, and now none of its
    outputs is here, as DVC leaves it when it starts the stage.
    """

    stage: str
    paths: list[str]
    removed: bool

    @property
    def shown(self) -> str:
        """Their number and the first of them."""
        first, rest = ", ".join(self.paths[:MAX_SHOWN]), len(self.paths) - MAX_SHOWN
        more = f", and {rest} more" if rest > 0 else ""
        outputs = counted(len(self.paths), "output")
        return f"{outputs} of {self.stage} that dvc.lock names: {first}{more}"


def find_missing() -> dict[str, Missing]:
    """The stages with outputs that are not here; none while a stage or DVC is at work."""
    try:
        locked = read_lock()
    except UserError:
        return {}  # another check says that the file can't be read
    if not locked or stage_is_running() or not is_free(DVC_LOCK):
        return {}
    found: dict[str, Missing] = {}
    ended = read_seconds()
    for name, entry in locked.items():
        outs = [str(out["path"]) for out in entry.get("outs") or []]
        paths = [path for path in outs if "://" not in path and not Path(path).exists()]
        if paths:
            was_here = name in ended or _git_has_any(paths)
            found[name] = Missing(name, paths, removed=was_here and len(paths) == len(outs))
    return found


def _git_has_any(paths: list[str]) -> bool:
    command = ["git", "ls-files", "--", *paths]
    done = subprocess.run(command, capture_output=True, check=False)
    return bool(done.stdout.strip())
