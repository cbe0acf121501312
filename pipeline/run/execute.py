"""One stage: `dvc repro --single-item` under a supervisor, its lines as they come, how it ended."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from pipeline.common.processes import RUN_VARIABLE, STAGE_VARIABLE, end_run
from pipeline.run import supervisor
from stages.common.errors import UserError

# Longer than a checkpoint takes; with all that follows it stays well below fifteen seconds.
GRACE_SECONDS = 8.0
NUM_TAIL_LINES = 15
# A stage that was told to stop and has saved where it was (EX_TEMPFAIL).
PREEMPTED = 75
MAX_PREEMPTIONS = 20
BUSY_WAIT_SECONDS = 2.0

_SAYS = {
    "ran": re.compile(r"^Running stage '"),
    "restored": re.compile(r"^Stage '.*' is cached - skipping run"),
    "unchanged": re.compile(r"^(Stage )?'.*' didn't change, skipping"),
}
_EXITED = re.compile(r"failed to run: .*, exited with (-?\d+)$")
# A stage says so before its mistakes (stages/runtime/stage.py), and who sends one to a work pool.
_STOPPED = re.compile(
    r"^\w+ stopped$|^.+ was not run in the work pool '.+'$"
    r"|^the inputs of .+ could not be fetched from DVC's remote$"
)
_BUSY = re.compile(r"' is busy, it is being blocked by")
# What DVC says to a person who typed the command.
_CHATTER = re.compile(
    r"^$|^To track the changes with git, run:|^\s+git add |^To enable auto staging, run:|"
    r"^\s+dvc config core.autostage|^Use `dvc push` to send|^Updating lock file|"
    r"^Data and pipelines are up to date|^Generating lock file"
)


@dataclass(frozen=True)
class StageEnd:
    """The end of a stage: 'ran', 'restored', 'unchanged' or 'failed', and its last lines.

    `mistake` is the first line of the mistake that it stopped at, empty where it said none.
    """

    state: str
    seconds: float
    code: int
    tail: tuple[str, ...]
    reason: str = ""
    timed_out: bool = False
    mistake: str = ""


class Supervisors:
    """The supervisors of one run. Final; all are let go together, and none starts after that."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.grace_seconds = read_grace_seconds()
        self._lock = threading.Lock()
        self._held: set[subprocess.Popen[bytes]] = set()
        self._end = threading.Event()

    @property
    def ended(self) -> bool:
        """Check whether the run is being ended."""
        return self._end.is_set()

    def wait(self, seconds: float) -> None:
        """Wait that long, or until the run is being ended."""
        self._end.wait(seconds)

    def start(self, stage: str, command: list[str]) -> subprocess.Popen[bytes] | None:
        """Start the command of a stage under a supervisor; None when the run is being ended."""
        with self._lock:
            if self.ended:
                return None
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    supervisor.__file__,
                    str(self.grace_seconds),
                    *command,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=stage_environment(self.run, stage),
                start_new_session=True,
            )
            self._held.add(process)
            return process

    def let_go(self, process: subprocess.Popen[bytes]) -> None:
        """End one command and everything that it started; returns at once."""
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        """Hold the supervisor no longer: the command has ended, or else it is ended now."""
        self.let_go(process)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        with self._lock:
            self._held.discard(process)

    def end_all(self) -> None:
        """Let every supervisor go, and let none start from now on; returns at once."""
        with self._lock:
            self._end.set()
            held = list(self._held)
        for process in held:
            self.let_go(process)


def read_grace_seconds() -> float:
    """The time that a stage has to end by itself once it is told to. Raises UserError."""
    text = os.environ.get("REPRISE_GRACE_SECONDS", str(GRACE_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"REPRISE_GRACE_SECONDS is '{text}': it must be seconds, 0 or more")
    return seconds


def stage_environment(run: str, stage: str) -> dict[str, str]:
    """This environment with the run's id, this interpreter first, and lines as they come."""
    return {
        **os.environ,
        RUN_VARIABLE: run,
        STAGE_VARIABLE: stage,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
    }


def run_stage(
    name: str,
    supervisors: Supervisors,
    say: Callable[[str], None],
    *,
    force: bool = False,
    timeout_seconds: float | None = None,
) -> StageEnd:
    """Run one stage to its end; `say` gets each line of it.

    A stage that was preempted (exit code 75) resumes at once. One that met DVC's lock on a path,
    which a process that has ended may still hold, tries once more. The time is for all tries.
    """
    preemptions, busy, start = 0, 0, time.monotonic()
    limit = threading.TIMEOUT_MAX if timeout_seconds is None else timeout_seconds
    while True:
        left = max(0.0, start + limit - time.monotonic())
        end = _run_once(name, supervisors, say, left, force=force)
        end = replace(end, seconds=time.monotonic() - start)
        if end.timed_out:
            return replace(end, reason=f"no end after {limit:g} s (meta.timeout_seconds)")
        if supervisors.ended or end.state != "failed":
            return end
        if end.code == PREEMPTED and preemptions < MAX_PREEMPTIONS:
            preemptions += 1
            say(f"preempted (exit code {PREEMPTED}): running it again")
        elif _BUSY.search("\n".join(end.tail)) and not busy:
            busy += 1
            say("DVC found one of its paths locked: trying once more")
            supervisors.wait(BUSY_WAIT_SECONDS)
        else:
            return end


def _run_once(
    name: str,
    supervisors: Supervisors,
    say: Callable[[str], None],
    limit_seconds: float,
    *,
    force: bool,
) -> StageEnd:
    dvc = str(Path(sys.executable).parent / "dvc")
    # Before the subcommand: without it parallel stages fail at each other's locks.
    command = [dvc, "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else [])]
    return run_command(name, [*command, name], supervisors, say, limit_seconds)


def run_command(
    name: str,
    command: list[str],
    supervisors: Supervisors,
    say: Callable[[str], None],
    limit_seconds: float = threading.TIMEOUT_MAX,
) -> StageEnd:
    """Run a command under a supervisor to its end; `say` gets each line of it."""
    process = supervisors.start(name, command)
    if process is None:
        return StageEnd("failed", 0.0, supervisor.ENDED, (), "the run was ended")
    timed_out = threading.Event()

    def stop() -> None:
        timed_out.set()
        supervisors.let_go(process)

    timer = threading.Timer(min(limit_seconds, threading.TIMEOUT_MAX), stop)
    timer.daemon = True
    timer.start()
    try:
        end = _follow(process, say)
    finally:
        timer.cancel()
        supervisors.forget(process)
    if process.returncode == -signal.SIGKILL:
        num_left = end_run(supervisors.run, supervisors.grace_seconds, name)
        return replace(
            end, reason=f"its supervisor was killed; ended the {num_left} processes it held"
        )
    return replace(end, timed_out=end.state == "failed" and timed_out.is_set())


def _follow(process: subprocess.Popen[bytes], say: Callable[[str], None]) -> StageEnd:
    """Read a stage's lines until its supervisor has ended."""
    tail: deque[str] = deque(maxlen=NUM_TAIL_LINES)
    state, exited = "unchanged", None
    assert process.stdout is not None
    for raw in process.stdout:
        # A progress bar rewrites its line: the last state of it is the line.
        text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
        line = text.rpartition("\r")[2].rstrip()
        state = next((s for s, pattern in _SAYS.items() if pattern.match(line)), state)
        match = _EXITED.search(line)
        exited = int(match[1]) if match else exited
        if not _CHATTER.match(line):
            tail.append(line)
            say(line)
    code = process.wait()
    if code == 0:
        return StageEnd(state, 0.0, 0, tuple(tail))
    code = code if exited is None else exited
    return StageEnd("failed", 0.0, code, tuple(tail), f"exit code {code}", mistake=_mistake(tail))


def _mistake(tail: Iterable[str]) -> str:
    """The line behind that which says that a stage has stopped."""
    return next((line for before, line in pairwise(tail) if _STOPPED.search(before)), "")
