"""Lock files: one process at a time holds one, and the kernel lets go however that process ends."""

import fcntl
import os
import time
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.1


def lock_of(folder: Path) -> Path:
    """The lock file beside `folder` that whoever works in there holds."""
    return folder.with_name(f"{folder.name}.lock")


def hold(path: Path, *, wait_seconds: float = 0.0) -> IO[str] | None:
    """The lock file, made where there is none, open and locked; closing it lets go.

    None when others have held it for all of `wait_seconds`. Raises OSError.
    """
    until = time.monotonic() + wait_seconds
    while (file := _try(path)) is None:
        if time.monotonic() >= until:
            return None
        time.sleep(POLL_SECONDS)
    return file


def is_free(path: Path) -> bool:
    """Check that no process holds the lock file; makes none where there is none."""
    if not path.exists():
        return True
    file = hold(path)
    if file is None:
        return False
    file.close()
    return True


def _try(path: Path) -> IO[str] | None:
    file = path.open("a+", encoding="utf-8")
    held = False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another may have removed it between the two steps: that lock is worth nothing.
        held = os.path.samestat(path.stat(), os.fstat(file.fileno()))
        file.seek(0)
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not held:
            file.close()
    return file if held else None
