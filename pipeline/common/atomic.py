"""Writes a file whole, or leaves it as it was: a process may be killed, a disk may be full."""

import os
from pathlib import Path

from stages.common.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`, whose folder must exist, through a temporary file beside it.

    Of several that write at once, one wins. Raises OSError that names `path`, which is as it was.
    """
    # Hidden, so that who lists a folder does not take for content what a kill has left there.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            # Else a power cut could leave the new name with none of the content.
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def write_output(path: Path, content: str, option: str = "--output") -> None:
    """Write what somebody wants at `path`, by `option`, whole; its folder is made.

    Raises UserError, with `path` as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{option} {path} can't be written: {reason}") from None
