"""`reprise run`: the flow in this terminal, from the overrides to the table at the end."""

import atexit
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.common.git import check_owner
from pipeline.metrics.metrics import format_value, read_metrics
from pipeline.params.check import check_params
from pipeline.params.overrides import apply_overrides_to_file, parse_overrides, preview_overrides
from pipeline.server.access import AUTH, CLIENT_AUTH, client_environment, is_local
from pipeline.server.ensure import ensure_server
from stages.common.errors import UserError

if TYPE_CHECKING:
    from pipeline.run.run_result import RunResult

SOURCE = "--set"
# As the shell counts: 128 and the number of SIGINT.
INTERRUPTED = 130
# And that of SIGTERM.
TERMINATED = 143
# All is well except for the server, which can't be told (EX_UNAVAILABLE).
SERVER_LOST = 69


def run(
    stages: Sequence[str],
    settings: Sequence[str],
    *,
    force: bool,
    parallel: int,
    wait: bool,
    advise_seconds: float | None = None,
) -> bool:
    """Run stages as a Prefect flow; show how each ended; say whether all is well.

    With `advise_seconds` it measures for as long what to improve first, after them.
    Raises UserError for what the user can mend, most of it before anything runs.
    """
    _check_names(stages)
    overrides = parse_overrides(settings)
    if overrides:
        preview_overrides(overrides, SOURCE)
    else:
        check_params()
    check_owner(Path.cwd())
    url = ensure_server()
    os.environ |= client_environment(url)
    # The lines of the stages are shown by this process's console; the server has the logs as well.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")

    def edit() -> None:
        """Edit the parameters once no other run is going in this folder: it would see them."""
        for line in apply_overrides_to_file(overrides, SOURCE):
            click.secho(line, fg={"+": "green", "-": "red", "@": "cyan"}.get(line[:1]))
        check_params()

    # Without settings the check above was of the very file that the stages read.
    result = _run_flow(
        url,
        stages,
        edit if overrides else None,
        force=force,
        parallel=parallel,
        wait=wait,
        advise_seconds=advise_seconds,
    )
    show_result(result)
    if result.signal_number is not None:
        sys.exit(INTERRUPTED if result.signal_number == signal.SIGINT else TERMINATED)
    return is_well(result)


def _check_names(stages: Sequence[str]) -> None:
    """Raise UserError for what can be no stage, but a value without its `--set`."""
    # Behind the @ of a foreach or matrix anything may stand.
    if values := [name for name in stages if "=" in name.partition("@")[0]]:
        meant = " ".join(f"--set {value}" for value in values)
        shown = ", ".join(f"'{value}'" for value in values)
        raise UserError(f"{shown} can't be a stage: each value has its own --set\n  {meant}")


def is_well(result: "RunResult") -> bool:
    """Check that every stage ended well and no gate failed."""
    return not result.failed and not result.cancelled and not result.failed_gates


def _end_without_server(url: str, result: "RunResult") -> NoReturn:
    """Show how the stages ended, and end at once: Prefect would wait for its server."""
    show_result(result)
    click.echo(
        f"the Prefect server at {url} is gone, so the end of this run does not stand there\n"
        "  what the stages have written is in place and in dvc.lock\n"
        f"  exit code {SERVER_LOST} says that only the server failed; 'reprise up' starts it anew",
        err=True,
    )
    sys.stdout.flush()
    os._exit(SERVER_LOST if is_well(result) else 1)


def _run_flow(
    url: str,
    stages: Sequence[str],
    edit: Callable[[], None] | None,
    *,
    force: bool,
    parallel: int,
    wait: bool,
    advise_seconds: float | None,
) -> "RunResult":
    import httpx
    from prefect.exceptions import PrefectException

    from pipeline.report.advice.measure import write_pages
    from pipeline.run.advice_task import AdviceAsked
    from pipeline.run.console import Console
    from pipeline.run.flow import run_flow

    asked = None if advise_seconds is None else AdviceAsked(advise_seconds, write_pages)
    try:
        return run_flow(
            stages,
            force=force,
            parallel=parallel,
            wait=wait,
            console=Console(live=True),
            edit=edit,
            on_server_lost=partial(_end_without_server, url),
            advice=asked,
        )
    except KeyboardInterrupt:
        click.echo("interrupted: every process of the run has ended; stages that had are kept")
        sys.exit(INTERRUPTED)
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        # A plain RuntimeError is what Prefect raises when it finds no server.
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise
        # At its exit Prefect would spend minutes offering its events to a server that is gone.
        atexit.register(os._exit, 1)
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the Prefect server at {url} did not take the run: {reason}\n"
            "  stages that have ended are in dvc.lock, and nothing else is lost\n"
            f"  {remedy(url, reason)}; 'dvc repro' needs no server"
        ) from None


def remedy(url: str, reason: str) -> str:
    """The likely remedy for a server's refusal, by its message and its address."""
    if "401" in reason:
        return (
            f"{CLIENT_AUTH} must be what that server asks for (for one of 'reprise up' in another "
            f"folder: what {AUTH} says there)"
        )
    proxies = [name for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY") if os.environ.get(name)]
    if proxies and not is_local(url):
        return f"it was asked through {proxies[0]}, unless NO_PROXY names it: does that reach it?"
    return "see .reprise/logs/ and the free disk space; 'reprise down', 'reprise up' start it anew"


def show_result(result: "RunResult") -> None:
    """Print the last lines of what failed, a row a stage, and the gates that failed."""
    from pipeline.run.console import COLOURS
    from pipeline.run.run_result import ENDED_WELL

    console = Console(highlight=False)
    for name, state in result.states.items():
        end = result.ends.get(name)
        if state == "failed" and end is not None:
            console.print(
                Text(f"\n{name} failed ({end.reason}); its last lines:", style="bold red")
            )
            for line in end.tail:
                console.print(Text(f"  {line}"), soft_wrap=True)
    metrics = read_metrics()
    table = Table()
    for column, justify in (("stage", "left"), ("state", "left"), ("seconds", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    table.add_column("metrics")
    for each in result.plan:
        state = result.states.get(each.name, "not started")
        end = result.ends.get(each.name)
        seconds = "" if end is None else f"{end.seconds:.1f}"
        # What lies there of a stage that did not end well is of the run before.
        shown_metrics = metrics.get(each.name, {}) if state in ENDED_WELL else {}
        shown = Text(state, style=COLOURS.get(state, ""))
        table.add_row(each.name, shown, seconds, _in_words(shown_metrics))
    console.print(table)
    for sentence in result.failed_gates:
        console.print(Text(sentence, style="bold red"), soft_wrap=True)
    if result.cancelled:
        console.print("cancelled: every process of the run has ended")


def _in_words(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in metrics.items())
