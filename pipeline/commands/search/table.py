"""The best trials of a search side by side, with the values in which they differ."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.commands.search.progress import Progress, Row, is_running, read_progress
from stages.common.errors import UserError
from stages.locks import is_free

NUM_BEST = 5
REFRESH_SECONDS = 1.0
# Between the end of a search and the moment when its outputs are in place.
MAX_MISSED = 30
# A stage loads its libraries before it can be told that it runs.
WAIT_SECONDS = 120.0
# DVC holds it until it starts a stage, which then takes a while to say that it runs.
DVC_LOCK, BEGIN_SECONDS = Path(".dvc/tmp/lock"), 10.0
# A search that has written nothing for so long is worth a look.
QUIET_SECONDS = 60.0


def show_search(*, watch: bool) -> None:
    """Print the best trials and what is left; with `watch`, until the search ends.

    To `watch` is to wait for a search that is about to begin, too; where there is no terminal, only
    the end is printed. Raises UserError when there is no search to show.
    """
    console = Console()
    try:
        progress = _wait_for_search(console) if watch else read_progress()
        if watch and not _has_ended(progress):
            _follow(console, progress)
        else:
            console.print(draw(progress))
    except KeyboardInterrupt:
        return


def _has_ended(progress: Progress) -> bool:
    return bool(progress.reason) or progress.stopped_at is not None


def _wait_for_search(console: Console) -> Progress:
    """The first search there is; one that was stopped is waited for on a terminal alone.

    An earlier one that has ended is none while the stage runs, or DVC is about to start it. Raises
    UserError where none begins within `WAIT_SECONDS` and the stage does not run.
    """
    until, told, begins_until = time.monotonic() + WAIT_SECONDS, False, 0.0
    while True:
        if is_running() or not is_free(DVC_LOCK):
            begins_until = time.monotonic() + BEGIN_SECONDS
        begins = time.monotonic() < begins_until
        progress, missing = None, None
        try:
            progress = read_progress()
        except UserError as error:
            missing = error
        waits = begins if progress and progress.reason else console.is_terminal
        if progress is not None and not (_has_ended(progress) and waits):
            return progress
        if time.monotonic() >= until and not begins:
            if progress is None:
                raise missing or AssertionError
            return progress
        if not told:
            before = "no search runs yet" if progress is None else _state(progress)
            click.echo(f"{before}; waits {WAIT_SECONDS:.0f} s for one to begin", err=True)
            told = True
        time.sleep(REFRESH_SECONDS)


def _follow(console: Console, progress: Progress) -> None:
    """Show a search until it ends, or nobody runs it any more; without a terminal its end."""
    if not console.is_terminal:
        *_, progress = _each_state(progress)
        console.print(draw(progress))
        return
    with Live(draw(progress), console=console, auto_refresh=False) as live:
        for state in _each_state(progress):
            live.update(draw(state), refresh=True)


def _each_state(progress: Progress) -> Iterator[Progress]:
    """The state of a search once a second, until it ends, or nobody runs it any more."""
    missed = 0
    while not _has_ended(progress) and missed < MAX_MISSED:
        time.sleep(REFRESH_SECONDS)
        try:
            progress, missed = read_progress(), 0
        except UserError:
            missed += 0 if is_running() else 1
        yield progress


def draw(progress: Progress) -> Group:
    """A column for each of the best trials, and the state of the search below.

    The keys in which they do not differ are left out.
    """
    best = progress.best(NUM_BEST)
    table = Table(show_header=bool(best))
    table.add_column("trial", no_wrap=True)
    for row in best:
        trains = not row.end and progress.stopped_at is None
        table.add_column(f"{row.number}" + (" …" if trains else ""), justify="right")
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
    if progress.stopped_at is not None:
        # The trials of a batch that was cut short are trained again.
        clock = time.strftime("%H:%M:%S", time.localtime(progress.stopped_at))
        quiet = _duration(progress.quiet_seconds)
        parts.append(f"was stopped at {clock}, {quiet} ago; 'dvc repro' goes on")
        return ", ".join(parts)
    if progress.resumes:
        return ", ".join([*parts, "the stage tune has begun again, and trains no trial yet"])
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
