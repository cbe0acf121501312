"""`dvc.lock` as the flow looks at it: which stages it has, and in which order."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.common.atomic import write_whole
from stages.common.yamlfile import read_yaml
from stages.locks import hold

LOCK = Path("dvc.lock")
DVC_LOCK = Path(".dvc/tmp/lock")
_HEAD = re.compile(r"  (\S.*):\n")


def _read() -> dict[str, Any]:
    return (read_yaml(LOCK).get("stages") or {}) if LOCK.exists() else {}


def locked_stages() -> list[str]:
    """The stages that have an entry, in the file's order."""
    return list(_read())


def outputs_unchanged(stage: str, upstream: Sequence[str]) -> bool:
    """Check that each input of `stage` that `upstream` writes is the one it is recorded with.

    False where that can't be told from the file: the folder of an input is another's output, or
    a `.dvc` file is upstream.
    """
    locked = _read()
    if stage not in locked or not all(name in locked for name in upstream):
        return False
    written = {
        out["path"]: out.get("md5")
        for name in upstream
        for out in locked.get(name, {}).get("outs", [])
    }
    for dep in locked[stage].get("deps", []):
        path = dep["path"]
        if path in written:
            if written[path] is None or dep.get("md5") != written[path]:
                return False
        elif any(path.startswith(f"{out}/") or out.startswith(f"{path}/") for out in written):
            return False
    return True


def keep_order(stages: Sequence[str], before: Sequence[str]) -> None:
    """Put the entries that a run has added into the order of `stages`, as `dvc repro` adds them.

    Stages that run side by side end in any order; the file must not tell.
    """
    if not LOCK.exists():
        return
    text = LOCK.read_text(encoding="utf-8")
    head, *blocks = _split(text)
    names = [block.partition(":\n")[0].strip(" '\"") for block in blocks]
    new = [name for name in names if name not in before and name in stages]
    ordered = sorted(new, key=list(stages).index)
    if new == ordered:
        return
    by_name = dict(zip(names, blocks, strict=True))
    turn = iter(ordered)
    placed = [by_name[next(turn) if name in new else name] for name in names]
    # As DVC locks it. While something else writes or has written, its order stands.
    held = hold(DVC_LOCK)
    if held is not None:
        with held:
            if LOCK.read_text(encoding="utf-8") == text:
                write_whole(LOCK, head + "".join(placed))


def _split(text: str) -> list[str]:
    """The text before the first entry, then each entry with its lines."""
    parts = [""]
    for line in text.splitlines(keepends=True):
        if _HEAD.fullmatch(line):
            parts.append("")
        parts[-1] += line
    return parts
