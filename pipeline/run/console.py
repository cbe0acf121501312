"""The run in a terminal: each stage's lines under its name, and who is at it now."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.text import Text

from pipeline.plan.plan import StagePlan

COLOURS = {
    "ran": "green",
    "restored": "cyan",
    "unchanged": "dim",
    "failed": "bold red",
    "skipped": "yellow",
    "cancelled": "yellow",
}


class Console:
    """The terminal during a run; with `live` False it is silent, as under a worker. Final.

    On a terminal the stages at work stand below the lines, with their seconds; elsewhere lines
    alone are printed.
    """

    def __init__(self, *, live: bool) -> None:
        self._console = RichConsole(stderr=False, highlight=False, quiet=not live, soft_wrap=True)
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}
        self._width = 0

    @contextmanager
    def shown(self, plan: Sequence[StagePlan]) -> Iterator[None]:
        """Show the stages at work until the block ends."""
        self._width = max((len(each.name) for each in plan), default=0)
        if not self._console.is_terminal or self._console.quiet:
            yield
            return
        with Live(console=self._console, get_renderable=self._now, transient=True):
            yield

    def _now(self) -> Group:
        now = time.monotonic()
        with self._lock:
            rows = [f"{name:{self._width}} │ {now - t:4.0f} s" for name, t in self._since.items()]
        return Group(*(Text(row, style="bold") for row in rows))

    def note(self, text: str) -> None:
        """Say something about the run as a whole."""
        self._print(Text(text, style="yellow"))

    def _print(self, row: Text) -> None:
        try:
            self._console.print(row)
            sys.stdout.flush()
        except OSError:
            # Whoever read along has left (`| head`), or the disk of a log is full: no reason for
            # a stage to fail.
            self._console.quiet = True

    def started(self, name: str) -> None:
        """A stage is at work from now on."""
        with self._lock:
            self._since[name] = time.monotonic()

    def line(self, name: str, text: str) -> None:
        """A line that a stage has printed."""
        self._print(Text.assemble((f"{name:{self._width}} │ ", "dim"), text))

    def ended(self, name: str, state: str, seconds: float | None) -> None:
        """A stage has ended, or need not run."""
        with self._lock:
            self._since.pop(name, None)
        took = "" if seconds is None else f" in {seconds:.1f} s"
        row = Text.assemble((f"{name:{self._width}} │ ", "dim"), (f"{state}{took}", COLOURS[state]))
        self._print(row)
