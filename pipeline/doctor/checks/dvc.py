"""DVC: its files, its cache, its locks, and what killed commands have left."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.common.dvc_repo import locked, open_repo, to_user_error
from pipeline.common.lockfile import DVC_LOCK, LOCK
from pipeline.common.rwlock import RWLOCK, is_whole, mend_rwlock
from pipeline.deps.deps import derive, out_of_date
from pipeline.doctor.finding import Finding, Options, note, ok, wrong
from pipeline.doctor.places import cache_folder, stage_is_running
from pipeline.params.object_heads import HEAD, is_written
from stages.common.addresses import FETCHED
from stages.common.errors import UserError
from stages.common.params import DVC_FILE, PARAMS
from stages.common.yamlfile import read_yaml
from stages.locks import is_free

AREA = "DVC"
DATA = Path("data")
WRITING = DATA / ".writing"
# The user's own files: no stage writes there.
RAW = DATA / "raw"
# What a killed DVC, or a killed stage, leaves of files that it was about to put in place. DVC draws
# 16 bytes for a name, so that a hidden file of somebody's own is not taken for one.
LEFT = re.compile(r"\.[\w-]{22}\.tmp|\..+\.restoring")


def check(_options: Options) -> Iterator[Finding]:
    """Yield what DVC would stumble over. Raises UserError for what can't be read."""
    yield from check_files()
    yield from check_cache(cache_folder())
    yield from check_locks()
    yield from check_left()


def check_files() -> Iterator[Finding]:
    """Yield whether DVC's files can be read, and dvc.yaml lists what the code imports."""
    try:
        for path in (DVC_FILE, PARAMS, LOCK):
            if path.exists():
                read_yaml(path)
    except UserError as error:
        mend = "reprise merge-lock" if b"<<<<<<< " in _bytes(LOCK) else "git diff"
        yield wrong(str(to_user_error(error)), "DVC refuses every command until it can", mend)
        return
    if changed := out_of_date(derive()):
        names = " and ".join(str(path) for path in changed)
        why = "a stage stops where it imports what is not listed: an edit there would rerun nothing"
        yield wrong(f"{names} don't hold what the code imports", why, "reprise deps")
    else:
        yield ok("dvc.yaml lists what the code imports")


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def check_cache(folder: Path) -> Iterator[Finding]:
    """Yield whether results can be kept in the cache; its disk is looked at with the machine."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        why = "every stage ends with its outputs not being kept: nothing comes back after a failure"
        yield wrong(f"the cache {folder} can't be written", why, f"ls -ld {there}")
        return
    if folder.is_dir() and folder.stat().st_dev != Path().stat().st_dev:
        why = "each output is copied, and lies on both; links would not work between them"
        yield note(f"the cache {folder} lies on another disk", why)
    yield ok(f"the cache {folder} can be written")


def check_locks() -> Iterator[Finding]:
    """Yield DVC's list of running commands where it is damaged, and who holds its lock."""
    if not is_whole():

        def mend() -> str:
            said: list[str] = []
            mend_rwlock(said.append)
            return said[0]

        why = "a full disk or a kill has cut it short: DVC refuses every command until it is gone"
        yield wrong(f"{RWLOCK} is damaged", why, "reprise doctor --fix", fix=mend)
    elif stage_is_running():
        yield note("a stage is running here", "what it writes is not looked at")
    if DVC_LOCK.exists() and not is_free(DVC_LOCK):
        why = "other commands of DVC's wait or fail until it has ended"
        yield note("a DVC command is running here", why, "dvc --wait-for-lock …")
    else:
        yield ok("no lock is held")


def check_left() -> Iterator[Finding]:
    """Yield what killed stages have left half written; it takes space, and nothing reads it."""
    if stage_is_running() or not is_free(DVC_LOCK):
        return
    left = list(find_left())
    if not left:
        yield ok("nothing half written")
        return

    def remove() -> str:
        # No command of DVC's begins as long as its lock is held, 'dvc pull' neither.
        with open_repo() as repo, locked(repo):
            if stage_is_running():
                raise UserError("a stage has begun meanwhile")
            if not is_whole():
                raise UserError(f"{RWLOCK} is damaged: nothing tells which stages run")
            for path in left:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        return f"removed {len(left)} half-written files and folders of killed stages"

    shown = ", ".join(str(path) for path in left[:3])
    why = "killed stages have left it: it takes space, and nothing reads it"
    yield note(f"half written: {shown}", why, "reprise doctor --fix", fix=remove)


def find_left() -> Iterator[Path]:
    """Yield what is half written under `data`, but for `data/raw`: those files are the user's.

    And what was fetched from object storage, for somebody who has not lived to remove it.
    """
    yield from WRITING.glob("*")
    yield from (path for path in FETCHED.glob("*") if not _is_used(path.name))
    for place in sorted(DATA.glob("*")):
        inside = place.rglob(".*") if place.is_dir() and place not in (RAW, WRITING) else ()
        yield from (path for path in (place, *inside) if LEFT.fullmatch(path.name))


def _is_used(fetched: str) -> bool:
    """Check whether heads are kept in a folder of what was fetched, or its command still runs."""
    return fetched.startswith(HEAD) or is_written(fetched)
