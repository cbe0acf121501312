"""One stage: `dvc repro --single-item` on a leash, its lines as they come, how it ended."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import leash
from pipeline.processes import RUN_VARIABLE, STAGE_VARIABLE, end_run

# Longer than a checkpoint takes; with what follows it stays below fifteen seconds.
GRACE_SECONDS = 10.0
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
_BUSY = re.compile(r"' is busy, it is being blocked by|Unable to acquire lock")
# What DVC says to a person who typed the command.
_CHATTER = re.compile(
    r"^$|^To track the changes with git, run:|^\s+git add |^To enable auto staging, run:|"
    r"^\s+dvc config core.autostage|^Use `dvc push` to send|^Updating lock file|"
    r"^Data and pipelines are up to date|^Generating lock file"
)


@dataclass(frozen=True)
class StageEnd:
    """How a stage ended: 'ran', 'restored', 'unchanged' or 'failed', and its last lines."""

    state: str
    seconds: float
    code: int
    tail: tuple[str, ...]
    reason: str = ""


class Leashes:
    """The leashes of one run. Final; all are let go together, and none starts after that."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.grace_seconds = float(os.environ.get("REPRISE_GRACE_SECONDS", GRACE_SECONDS))
        self._lock = threading.Lock()
        self._held: set[subprocess.Popen[str]] = set()
        self.ended = False

    def start(self, stage: str, command: list[str]) -> subprocess.Popen[str] | None:
        """Start the command of a stage on a leash; None when the run is being ended."""
        with self._lock:
            if self.ended:
                return None
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", leash.__file__, str(self.grace_seconds), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=stage_environment(self.run, stage),
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._held.add(process)
            return process

    def let_go(self, process: subprocess.Popen[str]) -> None:
        """End one command and everything that it started; returns at once."""
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.close()

    def forget(self, process: subprocess.Popen[str]) -> None:
        """The command has ended and its leash too."""
        with self._lock:
            self._held.discard(process)

    def end_all(self) -> None:
        """Let every leash go, and let none start from now on; returns at once."""
        with self._lock:
            self.ended = True
            held = list(self._held)
        for process in held:
            self.let_go(process)


def stage_environment(run: str, stage: str) -> dict[str, str]:
    """This environment with the run's id, our own interpreter first, and lines as they come."""
    return {
        **os.environ,
        RUN_VARIABLE: run,
        STAGE_VARIABLE: stage,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
    }


def run_stage(
    name: str,
    leashes: Leashes,
    say: Callable[[str], None],
    *,
    force: bool = False,
    timeout_seconds: float | None = None,
) -> StageEnd:
    """Run one stage to its end; `say` gets each line of it.

    A stage that was preempted (exit code 75) goes on at once. One that met a lock of DVC's which
    a dead process still held tries once more.
    """
    preemptions, busy, start = 0, 0, time.monotonic()
    while True:
        end = _run_once(name, leashes, say, force=force, timeout_seconds=timeout_seconds)
        said = "\n".join(end.tail)
        if leashes.ended or end.state != "failed":
            return replace(end, seconds=time.monotonic() - start)
        if end.code == PREEMPTED and preemptions < MAX_PREEMPTIONS:
            preemptions += 1
            say(f"preempted (exit code {PREEMPTED}): running it again")
        elif _BUSY.search(said) and not busy:
            busy += 1
            say("DVC's lock was held by a process that has ended: trying once more")
            time.sleep(BUSY_WAIT_SECONDS)
        else:
            return replace(end, seconds=time.monotonic() - start)


def _run_once(
    name: str,
    leashes: Leashes,
    say: Callable[[str], None],
    *,
    force: bool,
    timeout_seconds: float | None,
) -> StageEnd:
    dvc = str(Path(sys.executable).parent / "dvc")
    # Before the subcommand: without it parallel stages fail at each other's locks.
    command = [dvc, "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else [])]
    process = leashes.start(name, [*command, name])
    if process is None:
        return StageEnd("failed", 0.0, leash.ENDED, (), "the run was ended")
    timed_out = threading.Event()

    def stop() -> None:
        timed_out.set()
        leashes.let_go(process)

    timer = threading.Timer(timeout_seconds or threading.TIMEOUT_MAX, stop)
    timer.daemon = True
    timer.start()
    try:
        end = _follow(process, say)
    finally:
        timer.cancel()
        leashes.forget(process)
    if end.code == -signal.SIGKILL:
        num_left = end_run(leashes.run, leashes.grace_seconds, name)
        return replace(end, reason=f"its leash was killed; ended the {num_left} processes it held")
    if end.state == "failed" and timed_out.is_set():
        return replace(end, reason=f"no end after {timeout_seconds:g} s (meta.timeout_seconds)")
    return end


def _follow(process: subprocess.Popen[str], say: Callable[[str], None]) -> StageEnd:
    """Read a stage's lines until its leash has ended."""
    tail: deque[str] = deque(maxlen=NUM_TAIL_LINES)
    state, exited = "unchanged", None
    assert process.stdout is not None
    for raw in process.stdout:
        # A progress bar rewrites its line: the last state of it is the line.
        line = raw.rstrip("\n").rpartition("\r")[2].rstrip()
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
    return StageEnd("failed", 0.0, code, tuple(tail), f"exit code {code}")
