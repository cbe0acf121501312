"""The supervisor ends a whole family, whatever it does, when its holder lets go or dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
import pytest

from pipeline.run import supervisor
from pipeline.run.execute import Supervisors, run_command

# A family as torchrun's: a child in a session of its own that is deaf to SIGTERM, its parent gone.
ORPHAN = "import os,signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
FAMILY = f"""
import subprocess, sys, time
subprocess.Popen(["sh", "-c", "exec setsid {sys.executable} -c '{ORPHAN}' & echo $!"])
time.sleep(300)
"""


@contextmanager
def supervised(
    grace_seconds: float, *command: str, mark: str
) -> "Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]":
    """A supervisor, the pipe that holds it, and what it says."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", supervisor.__file__, str(grace_seconds), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SUPERVISOR_TEST": mark},
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process, process.stdin, process.stdout


def family_of(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SUPERVISOR_TEST") == mark:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_lines_and_exit_code_come_through() -> None:
    with supervised(5, "sh", "-c", "echo out; echo err >&2; exit 3", mark="code") as (
        held,
        _,
        said,
    ):
        assert said.read() == "out\nerr\n"
        assert held.wait(10) == 3
    with supervised(5, "sh", "-c", "kill -9 $$", mark="code") as (held, _, _said):
        assert held.wait(10) == 128 + 9


def test_letting_go_ends_a_deaf_orphan_in_a_session_of_its_own() -> None:
    with supervised(1, sys.executable, "-c", FAMILY, mark="deaf") as (held, hold, said):
        orphan = int(said.readline())
        assert psutil.pid_exists(orphan)
        start = time.monotonic()
        hold.close()
        assert held.wait(10) == supervisor.ENDED
        assert 0.9 < time.monotonic() - start < 8
    assert family_of("deaf") == []


def test_the_death_of_the_holder_is_letting_go() -> None:
    code = (
        "import subprocess, sys, time\n"
        "held = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)\n"
        "print(held.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    inner = [
        sys.executable,
        "-I",
        "-S",
        supervisor.__file__,
        "5",
        "sh",
        "-c",
        "sleep 300 & sleep 300",
    ]
    with subprocess.Popen(
        [sys.executable, "-c", code, *inner],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SUPERVISOR_TEST": "holder"},
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        wait_until(lambda: len(family_of("holder")) >= 4)
        holder.kill()
    wait_until(lambda: family_of("holder") == [])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_finished_command_left_running_is_ended() -> None:
    with supervised(5, "sh", "-c", "sleep 300 & exit 0", mark="left") as (held, _, _said):
        assert held.wait(10) == 0
    assert family_of("left") == []


def test_a_child_that_saves_on_sigterm_gets_the_time_and_an_open_pipe(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    code = (
        "import signal, sys, time\n"
        "def save(*_):\n"
        "    print('x' * 200_000, flush=True)\n"  # more than a pipe holds; nobody reads it
        f"    time.sleep(0.5); open({str(saved)!r}, 'w').close(); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready', flush=True)\n"
        "time.sleep(300)\n"
    )
    shell = f'{sys.executable} -c "$0"; exit $?'
    with supervised(10, "sh", "-c", shell, code, mark="save") as (held, hold, said):
        assert said.readline() == "ready\n"
        said.close()
        hold.close()
        assert held.wait(20) == supervisor.ENDED
    assert saved.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_supervisor_is_letting_go(number: signal.Signals) -> None:
    command = ("sh", "-c", "sleep 300 & echo ready; sleep 300")
    with supervised(5, *command, mark=f"signal{number}") as (held, _, said):
        said.readline()
        held.send_signal(number)
        assert held.wait(10) == supervisor.ENDED
    assert family_of(f"signal{number}") == []


def test_the_mistake_of_a_stage_is_found_also_where_it_was_not_sent() -> None:
    for head in ("train stopped", "train@1 was not run in the work pool 'gpu'"):
        said = f'echo first; echo; echo "{head}"; echo why; echo "  a remedy"; exit 1'
        end = run_command("train", ["sh", "-c", said], Supervisors("no-run"), print)
        assert (end.state, end.mistake) == ("failed", "why")
