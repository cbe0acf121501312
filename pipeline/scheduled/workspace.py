"""A clone of the repository for one run, so that nobody's working folder is touched.

`.reprise/workspaces/NAME` beside a lock file `NAME.lock` that the run's process holds: whatever
lies there with a lock that is free belongs to a run that has ended or was killed. The clones
share the DVC cache of the repository that they are made from, and its checkpoints.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psutil

from pipeline.common.git import TRANSFER_SECONDS, git, try_git
from pipeline.scheduled.revision import resolve_revision
from pipeline.scheduled.shared_cache import share_cache
from stages.common.errors import UserError
from stages.locks import hold, lock_of

WORKSPACES = Path(".reprise/workspaces")
NUM_FAILED_KEPT = 3
MAX_NAMES_TRIED = 99
RUNNING, FAILED = "running", "failed"
# Settings of the repository that a clone needs to reach the same remotes as the same person.
_CARRIED = ("credential", "http", "url", "user", "ssh", "lfs")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Workspace:
    """A run's own clone. `remote` is where its results are pushed to: 'origin' or 'base'."""

    name: str
    path: Path
    base: Path
    # As a person would say it: a branch, a tag, a commit.
    revision: str
    commit: str
    remote: str


@contextmanager
def open_workspace(
    base: Path, name: str, revision: str | None, say: Say, *, ref: str | None = None
) -> Iterator[Workspace]:
    """A clone of `base` at `revision`, removed at the end, or kept when the block fails.

    `revision` is a branch, tag or commit; None is the default branch of `origin` where the
    repository has that, else its current branch. `ref`, in place of it, is a ref of `origin`
    that no clone fetches by itself. Removes first what dead runs have left.
    Raises UserError when there is no such revision, or git, the network or the disk fails.
    """
    folder = base.resolve() / WORKSPACES
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Copies of credentials lie below.
        folder.chmod(0o700)
        remove_dead(folder, say)
        lock, path = _claim(folder, _as_file_name(name))
    except OSError as error:
        raise UserError(f"cannot write under {folder}: {error.strerror or error}") from None
    keep = ended = False
    try:
        try:
            workspace = _fill(base.resolve(), path, revision, say, ref)
        except OSError as error:
            raise UserError(f"cannot make {path}: {error.strerror or error}") from None
        try:
            yield workspace
        except Exception:
            keep = True
            raise
        except BaseException:
            # The run is being stopped: its stages may still be saving a checkpoint in there.
            # The next run, or 'reprise down', removes it.
            ended = True
            raise
    finally:
        if keep:
            _write(lock, FAILED)
            say(f"the workspace is kept for a look: {path}")
        elif not ended:
            _remove(path)
        lock.close()


def remove_dead(folder: Path, say: Say, *, num_kept: int = NUM_FAILED_KEPT) -> None:
    """Remove the workspaces of runs that have ended, except the last failed ones."""
    failed: list[tuple[float, Path]] = []
    used = _working_folders()
    for path in {*folder.glob("*.lock"), *map(lock_of, _folders(folder))}:
        lock = hold(path)
        if lock is None:
            continue
        with lock:
            if any(cwd.is_relative_to(path.with_suffix("")) for cwd in used):
                continue  # its stages are still ending
            if lock.read() == FAILED and path.with_suffix("").exists():
                failed.append((path.stat().st_mtime, path))
            else:
                _remove(path.with_suffix(""))
                say(f"removed the workspace of a run that was stopped: {path.stem}")
    for _, path in sorted(failed, reverse=True)[num_kept:]:
        if remove_workspace(path.with_suffix("")):
            say(f"removed the workspace of an older failed run: {path.stem}")


def remove_workspace(path: Path) -> bool:
    """Remove a workspace with its lock file; False, with nothing done, while a process is in it."""
    lock = hold(lock_of(path))
    if lock is None:
        return False
    with lock:
        if any(cwd.is_relative_to(path.resolve()) for cwd in _working_folders()):
            return False
        _remove(path)
    return not path.exists()


def find_project(base: Path, clone: Path) -> Path:
    """The path in a clone to the project of `base`, which may be below git's root."""
    return clone / git(base, "rev-parse", "--show-prefix")


def _working_folders() -> set[Path]:
    """The folders in which the processes of this machine work, as far as this user may know."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found.add(Path(process.cwd()))
    return found


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]


def _as_file_name(name: str) -> str:
    """`name` as git takes it in a branch and every system as a folder."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80]
    return plain or datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def _claim(folder: Path, name: str) -> tuple[IO[str], Path]:
    """A folder's name that nobody has, and its lock."""
    for number in range(1, MAX_NAMES_TRIED + 1):
        path = folder / (name if number == 1 else f"{name}-{number}")
        lock = hold(lock_of(path))
        if lock is None:
            continue
        if path.exists():
            lock.close()
            continue
        _write(lock, RUNNING)
        return lock, path
    raise UserError(f"{folder} has {MAX_NAMES_TRIED} workspaces named {name}: remove some")


def _write(lock: IO[str], text: str) -> None:
    lock.seek(0)
    lock.truncate()
    lock.write(text)
    lock.flush()


def _remove(path: Path) -> None:
    """Remove a workspace; its lock file goes last, so that a rest is found again."""
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        lock_of(path).unlink(missing_ok=True)


def _fill(base: Path, path: Path, revision: str | None, say: Say, ref: str | None) -> Workspace:
    # On one file system git links the objects: nothing is copied. A template's hooks stay out.
    arguments = ["--no-checkout", "--origin", "base", "--template="]
    git(
        base,
        "clone",
        "--quiet",
        *arguments,
        "--",
        git(base, "rev-parse", "--show-toplevel"),
        str(path),
    )
    remote = _add_origin(base, path)
    if ref is not None:
        shown, commit = ref, _fetch_ref(base, path, remote, ref)
    else:
        if remote == "origin":
            say("fetching origin")
            heads = ["--tags", "--force", "origin", "+refs/heads/*:refs/remotes/origin/*"]
            git(path, "fetch", "--quiet", *heads, seconds=TRANSFER_SECONDS)
        shown, commit = resolve_revision(base, path, remote, revision)
    git(path, "checkout", "--quiet", "--detach", commit)
    say(f"workspace {path.name}: {shown} at {commit[:10]}")
    project = find_project(base, path)
    if not (project / ".dvc").is_dir():
        raise UserError(f"{shown} ({commit[:10]}) has no DVC project: there is no .dvc in it")
    share_cache(base, project)
    return Workspace(path.name, project, base, shown, commit, remote)


def _fetch_ref(base: Path, path: Path, remote: str, ref: str) -> str:
    """The commit of a ref of origin, fetched alone. Raises UserError where it is not there."""
    if remote != "origin":
        raise UserError(f"{base} has no remote 'origin' to fetch {ref} from")
    git(path, "fetch", "--quiet", "--no-tags", "origin", f"+{ref}:{ref}", seconds=TRANSFER_SECONDS)
    return git(path, "rev-parse", "--verify", f"{ref}^{{commit}}")


def _add_origin(base: Path, path: Path) -> str:
    """Give the clone the repository's own `origin`; 'base' if there is none."""
    listed = try_git(base, "config", "--local", "--list", "-z").stdout
    settings = [entry.partition("\n")[::2] for entry in listed.split("\0") if entry]
    carried = [
        (name, value)
        for name, value in settings
        if name.startswith(("remote.origin.", "core.sshcommand")) or name.split(".")[0] in _CARRIED
    ]
    # In a file of their own that is included, for they may hold tokens, and a command's
    # arguments can be seen by everybody on the machine.
    own = Path(git(path, "rev-parse", "--absolute-git-dir")) / "reprise.config"
    own.touch(mode=0o600, exist_ok=False)
    with own.open("w", encoding="utf-8") as file:
        file.writelines(_as_setting(name, _absolute(base, name, value)) for name, value in carried)
    git(path, "config", "include.path", own.name)
    has_origin = any(name == "remote.origin.url" for name, _ in settings)
    return "origin" if has_origin else "base"


def _absolute(base: Path, name: str, value: str) -> str:
    """A remote's address that is a path is meant from the repository's own folder."""
    is_path = name in ("remote.origin.url", "remote.origin.pushurl") and ":" not in value
    return str((base / value).resolve()) if is_path else value


def _as_setting(name: str, value: str) -> str:
    """`name` and `value` in the form of git's configuration files."""
    section, _, rest = name.partition(".")
    subsection, _, key = rest.rpartition(".")
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    inner = subsection.replace("\\", "\\\\").replace('"', '\\"')
    head = f'[{section} "{inner}"]' if subsection else f"[{section}]"
    return f'{head}\n\t{key} = "{quoted}"\n'
