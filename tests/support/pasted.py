"""Python's prompt in a terminal, into which text is pasted as a person does it."""

import os
import pty
import select
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

SECONDS = 60
# What Python shows of an exception, and of a block that it could not read.
FAILURES = ("Traceback (most recent call last)", 'File "<stdin>"')


def paste_all(snippets: Iterable[str], folder: Path, env: Mapping[str, str]) -> list[str]:
    """Paste one after the other into one prompt, each with one more Enter; return what it showed.

    Python runs in `folder`, and warnings are errors. It is ended when a snippet fails, which is
    the last one shown then.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(sys.executable, [sys.executable, "-q", "-W", "error"], dict(env))
    shown: list[str] = []
    try:
        for number, snippet in enumerate(snippets):
            # In two parts, since the terminal shows what is typed, too.
            done = f"print('pasted', {number} + 1000)\n"
            shown.append(_paste(terminal, f"{snippet}\n{done}", f"pasted {number + 1000}"))
            if any(failure in shown[-1] for failure in FAILURES):
                break
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return shown


def _paste(terminal: int, text: str, end: str) -> str:
    """Write `text` and read until `end` is shown, both at once, or neither could go on."""
    left, shown = text.encode(), b""
    until = time.monotonic() + SECONDS
    while end.encode() not in shown:
        assert time.monotonic() < until, shown.decode(errors="replace")
        readable, writable, _ = select.select([terminal], [terminal] if left else [], [], 1)
        if readable:
            shown += os.read(terminal, 65536)
        if writable:
            left = left[os.write(terminal, left[:512]) :]
    return shown.decode(errors="replace").replace("\r", "")
