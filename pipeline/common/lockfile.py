"""`dvc.lock` by itself: which stages it has, in which order, and which of them are stale."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.atomic import write_whole
from stages.common.yamlfile import read_yaml
from stages.locks import hold

LOCK, PIPELINE = Path("dvc.lock"), Path("dvc.yaml")
DVC_LOCK = Path(".dvc/tmp/lock")
_HEAD = re.compile(r"  (\S.*):\n")


def read_lock(folder: Path = Path()) -> dict[str, Any]:
    """The stages of the `dvc.lock` in `folder` that its `dvc.yaml` has; none without such files."""
    lock, pipeline = (
        read_yaml(path) if path.exists() else {} for path in (folder / LOCK, folder / PIPELINE)
    )
    return of_pipeline(lock, pipeline)


def of_pipeline(lock: Mapping[str, Any], pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a `dvc.lock` whose stages a `dvc.yaml` has, both as they are read.

    DVC leaves the entry of a stage that is taken out of `dvc.yaml`, and never runs it again. Those
    that one stage with `foreach` or `matrix` makes are `name@item`.
    """
    names = pipeline.get("stages") or {}
    locked = lock.get("stages") or {}
    return {name: each for name, each in locked.items() if name.partition("@")[0] in names}


def find_stale(locked: Mapping[str, Any]) -> dict[str, str]:
    """The stages that ran on other outputs than `dvc.lock` records, and whose outputs these were.

    A stage below a stale one is stale by the same. `locked` are the stages of the file, of any
    revision. An input that is a part of an output folder is not looked at.
    """
    written = {
        out["path"]: (name, out.get("md5"))
        for name, entry in locked.items()
        for out in entry.get("outs") or []
    }
    above: dict[str, list[str]] = {}
    stale: dict[str, str] = {}
    for name, entry in locked.items():
        for dep in entry.get("deps") or []:
            writer, md5 = written.get(dep["path"], (name, None))
            above.setdefault(name, []).append(writer)
            if writer != name and None not in (md5, dep.get("md5")) and md5 != dep["md5"]:
                stale.setdefault(name, writer)
    # One round for each stage that may lie between the first stale one and the last.
    for _ in locked:
        for name, writers in above.items():
            causes = [stale[writer] for writer in writers if writer in stale]
            if causes:
                stale.setdefault(name, causes[0])
    return {name: stale[name] for name in locked if name in stale}


def describe_stale(stage: str, writer: str) -> str:
    """The reason why a stage is stale, as a part of a sentence, and what helps."""
    return f"{stage} has not run since {writer} wrote its outputs anew: run 'dvc repro'"


def locked_stages() -> list[str]:
    """The stages that have an entry, in the file's order."""
    return list(read_lock())


def outputs_unchanged(stage: str, upstream: Sequence[str]) -> bool:
    """Check that each input of `stage` that `upstream` writes is the one it is recorded with.

    False where that can't be told from the file: the folder of an input is another's output, or
    a `.dvc` file is upstream.
    """
    locked = read_lock()
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
