"""The best trials of a search side by side, with the values in which they differ."""

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.commands.search.progress import Progress, Row, read_progress
from stages.common.errors import UserError

NUM_BEST = 5
REFRESH_SECONDS = 1.0
MAX_MISSED = 30
# A search that has written nothing for so long may have been killed.
QUIET_SECONDS = 60.0


def show_search(*, watch: bool) -> None:
    """Print the best trials and what is left; on a terminal, `watch` until the search ends.

    Raises UserError when there is no search to show.
    """
    console = Console()
    progress = read_progress()
    if not (watch and console.is_terminal) or progress.reason:
        console.print(draw(progress))
        return
    with Live(draw(progress), console=console, auto_refresh=False) as live:
        missed = 0
        while not progress.reason and missed < MAX_MISSED:
            try:
                time.sleep(REFRESH_SECONDS)
                progress, missed = read_progress(), 0
            except KeyboardInterrupt:
                return
            except UserError:
                # Between the end of a search and the moment when its outputs are in place.
                missed += 1
            live.update(draw(progress), refresh=True)


def draw(progress: Progress) -> Group:
    """A column for each of the best trials, and the state of the search below.

    The keys in which they do not differ are left out.
    """
    best = progress.best(NUM_BEST)
    table = Table(show_header=bool(best))
    table.add_column("trial", no_wrap=True)
    for row in best:
        table.add_column(f"{row.number}" + ("" if row.end else " …"), justify="right")
    lines: dict[str, Callable[[Row], str]] = {
        "value": lambda row: _short(row.value),
        "epochs": lambda row: _epochs(row, progress),
        "from": lambda row: row.origin,
    }
    for name, cell in lines.items():
        table.add_row(name, *(cell(row) for row in best))
    table.add_section()
    for path in dict.fromkeys(path for row in best for path in row.values):
        cells = [_short(row.values.get(path)) for row in best]
        if len(set(cells)) > 1:
            table.add_row(path, *cells)
    return Group(table, Text(_state(progress)))


def _epochs(row: Row, progress: Progress) -> str:
    return f"{row.epochs}" if progress.num_epochs is None else f"{row.epochs}/{progress.num_epochs}"


def _state(progress: Progress) -> str:
    ended = [row for row in progress.rows if row.end]
    pruned = sum(row.end == "pruned" for row in ended)
    diverged = sum(row.end == "diverged" for row in ended)
    parts = [f"{len(ended)} of {progress.num_trials} trials ({progress.sampler})"]
    parts += [f"{pruned} pruned"] * (pruned > 0) + [f"{diverged} diverged"] * (diverged > 0)
    if progress.reason:
        parts += [f"best.yaml is trial {progress.picked}"] * (progress.picked is not None)
        return ", ".join([*parts, f"ended: {progress.reason}"])
    if progress.training:
        parts.append(f"{len(progress.training)} train, at epoch {progress.training[0].epochs}")
    if progress.seconds_left is not None:
        parts.append(f"about {_duration(progress.seconds_left)} left")
    if progress.quiet_seconds > QUIET_SECONDS:
        parts.append(f"nothing was written for {_duration(progress.quiet_seconds)}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _short(value: object) -> str:
    try:
        return "" if value is None else f"{float(str(value)):.5g}"
    except ValueError:
        return str(value)
