"""Standard output and standard error that no reader and no alphabet can break.

Whoever reads along may leave (`| head -1`), and a terminal may lack the sign of a product or the
half of a name that is no UTF-8. Neither is a reason for a stage to fail, nor for a command to
leave something half done.
"""

import io
import os
import sys
from typing import Any


def keep_printing() -> None:
    """Drop from now on what nobody reads, and escape what can't be written as it is.

    Only for the streams that this process was started with: a test's or a notebook's stay.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _unbreakable(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _unbreakable(sys.stderr)


class _Pipe(io.FileIO):
    """A file descriptor whose reader may leave: what is written then goes nowhere."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            # The descriptor itself, for processes that are started from now on too.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def _unbreakable(stream: Any) -> Any:
    """The stream on the same descriptor, in the same encoding; `stream` itself without one."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        stream.flush()
        pipe = _Pipe(stream.fileno(), "wb", closefd=False)
    except (OSError, ValueError):
        return stream  # closed, or of no file
    # Of Python's `-u` nothing is kept back: who kills the process has read what it said before.
    buffer: Any = pipe if stream.write_through else io.BufferedWriter(pipe)
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
