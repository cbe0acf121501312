"""Writes a file whole, or leaves it as it was: a process may be killed, a disk may be full."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` to `path`, whose folder must exist, through a temporary file beside it.

    Of several that write at once, one wins. Raises OSError, with `path` as it was.
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
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
