"""The lines that a training says in the stage's own process, under its name."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO


class NamedLines:
    """A text stream that passes whole lines on to another, each behind a name."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self.stream = stream
        self.begun = ""

    def write(self, text: str) -> int:
        """Pass on the lines that are whole."""
        *lines, self.begun = f"{self.begun}{text}".split("\n")
        for line in lines:
            self.stream.write(f"{self.name} │ {line.rstrip()}\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Tell who asks that there is no room for a bar: several trainings share the terminal."""
        return False

    def end(self) -> None:
        """Pass on what has no end of its line."""
        if self.begun:
            self.write("\n")


@contextmanager
def said_by(name: str) -> Iterator[None]:
    """Put `name` before each line that is printed in here."""
    lines = NamedLines(name, sys.stdout)
    with redirect_stdout(lines), redirect_stderr(lines):
        try:
            yield
        finally:
            lines.end()
            lines.flush()
