"""A supervisor: runs one command, and ends its whole family when the other end lets go.

    python -I -S supervisor.py GRACE_SECONDS COMMAND…      # stdin: a pipe that is never written

The flow holds the only write end of that pipe. However it ends, SIGKILL included, the kernel closes
it; the supervisor, in a session of its own, reads the end of file and ends every process that the
command started: SIGTERM, the grace period, SIGKILL. It is a subreaper, so orphans and new sessions
stay within its reach, and no zombie is left that could hold one of DVC's locks.

The standard library alone, run by its path: it must start fast and never see the project's code.
A parent-death signal would not do: torchrun's workers ignore it, and it fires when the *thread*
that started the child ends.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

PR_SET_CHILD_SUBREAPER = 36
# As the shell counts: 128 and the number of SIGTERM.
ENDED = 143
TICK_SECONDS = 0.1
# How long the command itself may take to end after the last process that it started.
ALONE_SECONDS = 1.0
# After SIGKILL only the kernel can hold a process back.
KILL_SECONDS = 10.0


def main() -> int:
    """Run the command; return its exit code, or ENDED when the supervisor was let go."""
    grace_seconds, command = float(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake = _wake_up_on(signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    output, theirs = os.pipe()
    # Kept: when it is thrown away, Popen would take the exit code that `reap` waits for.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    child = process.pid
    os.close(theirs)
    pump = threading.Thread(target=forward, args=(output,), daemon=True)
    pump.start()
    code: int | None = None
    while code is None:
        ready, _, _ = select.select([0, wake], [], [])
        if 0 in ready and not os.read(0, 1):
            break
        # SIGCHLD is one of them; any other asks for the end.
        if wake in ready and any(n != signal.SIGCHLD for n in os.read(wake, 4096)):
            break
        code = reap(child)
    # What a command that has ended left running would write into outputs that are finished.
    end_family(child, grace_seconds if code is None else 0.0)
    pump.join(KILL_SECONDS)
    if code is None:
        return ENDED
    return code if code >= 0 else 128 - code


def forward(source: int) -> None:
    """Hand on the output of the command, and keep reading when nobody listens any more.

    With a broken pipe of its own it would fail in the middle of saving a checkpoint.
    """
    listening = True
    while text := os.read(source, 65536):
        while listening and text:
            try:
                text = text[os.write(1, text) :]
            except OSError:
                listening = False


def _wake_up_on(*signals: signal.Signals) -> int:
    """The read end of a pipe that gets a byte, its number, for each of `signals`."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in signals:
        signal.signal(number, _ignore)
    return read


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """A handler of Python's: with SIG_IGN nothing would be written to the pipe."""


def reap(child: int) -> int | None:
    """Collect every process that has ended; the exit code of `child` if it is among them."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
    return code


def end_family(child: int, grace_seconds: float) -> None:
    """End everything below this process: SIGTERM to each once, SIGKILL after the grace period.

    The command itself (DVC, which writes its lock files in place) gets its SIGTERM when nothing
    that it started is left: by then it is about to end by itself.
    """
    signalled: set[int] = set()
    deadline = time.monotonic() + grace_seconds
    alone_since: float | None = None
    while (family := descendants()) and time.monotonic() < deadline:
        others = family - {child}
        if others:
            alone_since = None
        elif alone_since is None:
            alone_since = time.monotonic()
        patient = child in family and (
            alone_since is None or time.monotonic() - alone_since < ALONE_SECONDS
        )
        for pid in (others if patient else family) - signalled:
            send(pid, signal.SIGTERM)
            signalled.add(pid)
        time.sleep(TICK_SECONDS)
        reap(child)
    deadline = time.monotonic() + KILL_SECONDS
    while (family := descendants()) and time.monotonic() < deadline:
        for pid in family:
            send(pid, signal.SIGKILL)
        time.sleep(TICK_SECONDS / 10)
        reap(child)


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may have ended by now."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants() -> set[int]:
    """The processes below this one that have not ended, whatever their session."""
    children: dict[int, list[int]] = {}
    alive: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # After the name, which may hold anything: state, parent.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue  # it has ended
        children.setdefault(int(parent), []).append(int(entry.name))
        if state not in "ZX":
            alive.add(int(entry.name))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting += below
    return found & alive


if __name__ == "__main__":
    # Not sys.exit: there is nothing to clean up, and nothing may hold the end back.
    os._exit(main())
