"""DVC as a library: repository, lock files, errors as a user's mistakes.

Whoever only looks takes no lock, so that it works while a stage runs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.common.atomic import write_whole
from pipeline.common.lockfile import LOCK
from stages.common.errors import UserError
from stages.common.params import DVC_FILE, PARAMS
from stages.common.yamlfile import read_yaml

_CONFLICT = b"<<<<<<< "


@contextmanager
def open_repo(*, wait: bool = False) -> Iterator[Any]:
    """DVC's `Repo` of the current folder; what it raises inside becomes UserError.

    With `wait` its lock is waited for, as long as that takes.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.build import IgnoreInCollectedDirError

    try:
        with Repo(_wait_for_lock=wait) as repo:
            yield repo
    except (DvcException, IgnoreInCollectedDirError) as error:
        raise to_user_error(error) from None


@contextmanager
def locked(repo: Any) -> Iterator[None]:
    """Hold DVC's lock of `repo`; raises UserError when another command holds it."""
    from dvc.lock import LockError
    from dvc.repo import lock_repo

    try:
        with lock_repo(repo):
            yield
    except LockError:
        raise UserError(
            "another dvc or reprise command holds DVC's lock: try again when it has ended"
        ) from None


def write_locks(stages: Sequence[Any]) -> None:
    """Write the stages' entries into their lock files, each file whole or not at all."""
    from dvc.stage.serialize import to_lockfile
    from dvc.utils.serialize import parse_yaml_for_update

    files: dict[Path, Any] = {}
    for stage in stages:
        path = Path(stage.path).with_suffix(".lock")
        if path not in files:
            files[path] = parse_yaml_for_update(path.read_text(encoding="utf-8"), str(path))
        files[path]["stages"].update(to_lockfile(stage))
    for path, content in files.items():
        write_lock(path, content)


def write_lock(path: Path, content: Any) -> None:
    """Write a lock file as DVC formats it: whole, or it stays as it was."""
    from dvc.utils.serialize import dumps_yaml

    write_whole(path, dumps_yaml(content))


def to_user_error(error: Exception) -> UserError:
    """DVC's error as a user's mistake; of a broken file, with its line."""
    if LOCK.exists() and _CONFLICT in LOCK.read_bytes():
        return UserError(f"{LOCK} has conflicts of a merge: 'reprise merge-lock' resolves them")
    for path in (DVC_FILE, PARAMS, LOCK):
        try:
            if path.exists():
                read_yaml(path)
        except UserError as problem:
            return problem
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        # Of a schema's violations, each; the exception's own text only counts them.
        details = getattr(getattr(cause, "exc", None), "errors", None)
        for part in [str(cause), *map(str, details or [])]:
            if part and not any(part in known for known in parts):
                parts.append(part)
        cause = cause.__cause__
    return UserError("\n  ".join(parts))


def default_remote(folder: Path) -> str | None:
    """The name of the DVC remote that `dvc push` goes to, or None."""
    from dvc.config import Config

    name = Config(dvc_dir=str(folder / ".dvc"))["core"].get("remote")
    return str(name) if name else None
