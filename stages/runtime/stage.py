"""Starts and ends every stage: `run_stage("train", train)`."""

import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from stages.common.addresses import name_objects
from stages.common.errors import UserError, format_problem
from stages.common.params import Params
from stages.common.telemetry import switch_off_telemetry
from stages.common.terminal import keep_printing
from stages.common.user_code import own_errors
from stages.common.yamlfile import with_location
from stages.runtime.alone import running_alone
from stages.runtime.attempt import noted_attempt
from stages.runtime.environment import check_imports, check_versions
from stages.runtime.finished import changes_explain_errors, stop_if_changed, take_finished
from stages.runtime.input_watch import begin, watch
from stages.runtime.object_storage import fetched
from stages.runtime.outputs import flush_files, stage_outputs

Work = Callable[[Params, Path], None]
# Longer than the processes of a training are given to end.
STOP_AGAIN_SECONDS = 40.0
# Where `reprise plan` finds how long each stage took.
SECONDS = Path(".reprise/seconds")


def run_stage(stage: str, work: Work) -> None:
    """Run `work(params, folder)`; what it writes into `folder` becomes `data/<stage>`.

    Ends the process with 1 and one screen of text on a user's mistake; the outputs are then
    what they were before. Must be called from the repository's root, as DVC does.
    """
    keep_printing()
    started = time.monotonic()
    switch_off_telemetry()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _stop)
    try:
        with (
            running_alone(stage),
            noted_attempt(stage),
            stage_outputs(stage) as folder,
            _undisturbed_end(),
            own_errors(""),
        ):
            check_versions(stage)
            check_imports(stage)
            snapshot, params = begin(stage)
            for listing in snapshot.listings:
                print(f"fetching {listing.address}: {listing.num_bytes:,} bytes", flush=True)
            # Before the audit, which ends a stage that asks the network for anything.
            with fetched(stage, snapshot.listings), watch(snapshot):
                if not take_finished(snapshot, folder):
                    with changes_explain_errors(snapshot):
                        work(params, folder)
            # Once more: what the work has imported since, and from what.
            check_versions(stage)
            check_imports(stage)
            flush_files(folder)
            # Last of all: what is edited from here on, DVC may call by its new value.
            stop_if_changed(snapshot, folder)
        _note_seconds(stage, time.monotonic() - started)
        # Else the interpreter looks through all of torch for garbage, twice, before it ends: a
        # quarter of what such a process takes.
        gc.freeze()
    except UserError as error:
        _fail(stage, error)
    except OSError as error:
        # A full disk or a folder that can't be written is the user's to mend, no bug.
        name = f" {error.filename}" if error.filename else ""
        _fail(stage, UserError(f"{error.strerror or error}{name}"), error)
    except KeyboardInterrupt:
        print(f"\n{stage}: interrupted; the last outputs are back in place", file=sys.stderr)
        sys.exit(130)


def _note_seconds(stage: str, seconds: float) -> None:
    # The outputs are in place: that the time can't be written is no failure of the stage.
    with suppress(OSError):
        SECONDS.mkdir(parents=True, exist_ok=True)
        temporary = SECONDS / f".{stage}"
        temporary.write_text(f"{seconds:.3f}\n", encoding="utf-8")
        temporary.replace(SECONDS / stage)


def _fail(stage: str, error: UserError, cause: BaseException | None = None) -> NoReturn:
    print(f"\n{stage} stopped", file=sys.stderr)
    for problem in error.problems:
        print(name_objects(format_problem(with_location(problem))), file=sys.stderr)
    for note in getattr(cause or error, "__notes__", []):
        print(note, file=sys.stderr)
    sys.exit(1)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # What is raised inside a destructor is lost, and a library that is left in the middle may
    # wait for itself for ever: so again, until the work has ended.
    signal.setitimer(signal.ITIMER_REAL, STOP_AGAIN_SECONDS)
    raise SystemExit(143)


@contextmanager
def _undisturbed_end() -> Iterator[None]:
    """Keep signals from interrupting what brings the outputs back, once the work has ended."""
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
