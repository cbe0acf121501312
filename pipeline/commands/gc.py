"""Free what nothing needs any more, after showing it: `reprise gc`."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.commands.garbage import Garbage, find_garbage
from pipeline.common.dvc_repo import locked, open_repo
from pipeline.common.rwlock import mend_rwlock
from pipeline.scheduled.workspace import WORKSPACES, remove_workspace
from stages.common.errors import UserError
from stages.locks import hold, lock_of

MAX_OUTPUTS = 12


def collect(days: int, *, yes: bool = False, dry: bool = False, shared: bool = False) -> None:
    """Show what no branch, tag, workspace or recent run needs, ask, and free it.

    Raises UserError while a stage runs, and when the cache may be other projects' too and
    `shared` does not say that this is known.
    """
    mend_rwlock(click.echo)
    with open_repo() as repo, locked(repo):
        if not shared:
            _refuse_foreign(repo)
        garbage = find_garbage(repo, days)
    if not garbage:
        click.echo(f"nothing to free: all is needed, or younger than {days} days")
        return
    Console().print(to_table(garbage, days))
    if dry or not (yes or click.confirm("free it?")):
        return
    # Once more under the lock: somebody may have needed some of it while this was asking.
    with open_repo() as repo, locked(repo):
        now = find_garbage(repo, days)
        freed = _free(_both(garbage, now))
    click.echo(f"freed {format_size(freed)}")


def _refuse_foreign(repo: Any) -> None:
    cache, root = Path(repo.cache.local.path).resolve(), Path(repo.root_dir).resolve()
    if not cache.is_relative_to(root):
        raise UserError(
            f"DVC's cache {cache} lies outside this repository: other projects may keep outputs "
            "there that no branch of this one names, and would lose them\n"
            "  when it is this project's alone: reprise gc --shared"
        )


def to_table(garbage: Garbage, days: int) -> Table:
    """A table of what can go, with sizes, the largest first."""
    rows = [
        (f"versions of {name}" if name != "others" else "other objects", len(paths), size_of(paths))
        for name, paths in garbage.objects.items()
    ]
    rows.sort(key=lambda row: row[2], reverse=True)
    if len(rows) > MAX_OUTPUTS:
        rest = rows[MAX_OUTPUTS - 1 :]
        more = (f"of {len(rest)} more outputs", sum(r[1] for r in rest), sum(r[2] for r in rest))
        rows = [*rows[: MAX_OUTPUTS - 1], more]
    if garbage.entries:
        what = f"entries of DVC's run-cache, over {days} days old"
        rows.append((what, len(garbage.entries), size_of(garbage.entries)))
    for folder in garbage.folders:
        kind = "workspace" if folder.parent == WORKSPACES else "checkpoint"
        rows.append((f"{kind} {folder.name}", 1, size_of([folder])))
    if garbage.locks:
        rows.append(("lock files of checkpoints", len(garbage.locks), size_of(garbage.locks)))
    table = Table(show_footer=True)
    table.add_column("what", "together", overflow="fold", ratio=1)
    table.add_column("number", justify="right")
    total = sum(size for _, _, size in rows)
    table.add_column("size", format_size(total), justify="right", no_wrap=True)
    for what, number, size in rows:
        table.add_row(escape(what), str(number), format_size(size))
    return table


def size_of(paths: Iterable[Path]) -> int:
    """The bytes of files and folders together."""
    return sum(
        file.lstat().st_size
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file()
    )


def format_size(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _both(shown: Garbage, now: Garbage) -> Garbage:
    """The part of what was shown that is still garbage."""
    paths = {path for group in shown.objects.values() for path in group}
    return Garbage(
        [path for path in now.entries if path in shown.entries],
        {name: [p for p in group if p in paths] for name, group in now.objects.items()},
        [path for path in now.folders if path in shown.folders],
        [path for path in now.locks if path in shown.locks],
    )


def _free(garbage: Garbage) -> int:
    """Remove entries before what they point at; return the bytes that this freed."""
    freed = 0
    objects = [path for group in garbage.objects.values() for path in group]
    objects.sort(key=lambda path: not path.name.endswith(".dir"))
    for path in (*garbage.entries, *objects):
        freed += size_of([path])
        path.unlink(missing_ok=True)
        _prune(path.parent)
    for folder in garbage.folders:
        size = size_of([folder])
        remove = remove_workspace if folder.parent == WORKSPACES else _remove_checkpoints
        if remove(folder):
            freed += size
    for path in garbage.locks:
        _remove_lock(path)
    return freed


def _remove_checkpoints(folder: Path) -> bool:
    """Remove them and their lock file, unless a training holds them.

    One that is about to lock that file sees that it is gone, and makes another.
    """
    path = lock_of(folder)
    lock = hold(path)
    if lock is None:
        return False
    with lock:
        shutil.rmtree(folder)
        path.unlink(missing_ok=True)
    return True


def _remove_lock(path: Path) -> None:
    """Remove a lock file unless a training holds it, or has left checkpoints beside it."""
    lock = hold(path)
    if lock is None:
        return
    with lock:
        if not path.with_suffix("").exists():
            path.unlink(missing_ok=True)


def _prune(folder: Path) -> None:
    """Remove the folders of DVC's cache that are empty now (two levels at most)."""
    for path in (folder, folder.parent):
        if len(path.name) in (2, 64) and not any(path.iterdir()):
            path.rmdir()
