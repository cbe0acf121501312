"""Folders and settings that several checks ask for."""

from pathlib import Path
from typing import Any


def dvc_config() -> Any:
    """DVC's settings of this folder, by all of its files."""
    from dvc.config import Config

    return Config(dvc_dir=str(Path(".dvc").absolute()), validate=False)


def cache_folder() -> Path:
    """The folder in which DVC keeps files by their hashes."""
    folder = (dvc_config().get("cache") or {}).get("dir")
    return Path(str(folder)) if folder else Path(".dvc/cache")


def stage_is_running() -> bool:
    """Check whether a stage works in this folder.

    By what it has noted itself, since it may run without DVC, and by the paths that DVC has listed
    for it: a stage of one's own notes nothing.
    """
    from pipeline.doctor.attempts import read_attempts

    return any(attempt.is_running for attempt in read_attempts()) or _dvc_runs_stage()


def _dvc_runs_stage() -> bool:
    import json

    from pipeline.common.processes import find_by_id
    from pipeline.common.rwlock import RWLOCK

    try:
        listed = json.loads(RWLOCK.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    holders = list((listed.get("write") or {}).values())
    holders += [each for readers in (listed.get("read") or {}).values() for each in readers]
    return any(find_by_id(int(holder["pid"])) is not None for holder in holders)
