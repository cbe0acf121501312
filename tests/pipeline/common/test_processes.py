"""What several commands share: files written whole, lock files, processes found and ended."""

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.common.atomic import write_whole
from pipeline.common.processes import RUN_VARIABLE, end_run, find_processes
from stages.locks import hold, is_free, lock_of


def test_a_file_that_can_not_be_written_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "params.yaml"
    write_whole(path, "é\r\n")
    assert path.read_bytes() == "é\r\n".encode()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    # Not that of the temporary file.
    with pytest.raises(OSError, match=f"No space left on device: '{path}'$"):
        write_whole(path, b"new")
    assert path.read_bytes() == "é\r\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_by_one_and_one_that_was_removed_is_worth_nothing(tmp_path: Path) -> None:
    path = lock_of(tmp_path / "run")
    assert is_free(path)
    assert not path.exists()
    first = hold(path)
    assert first is not None
    with first:
        assert not is_free(path)
        begin = time.monotonic()
        assert hold(path, wait_seconds=0.2) is None
        assert time.monotonic() - begin >= 0.2
        # Whoever is done with the folder removes it with its lock: the next makes a new one.
        path.unlink()
        second = hold(path)
        assert second is not None
        second.close()
    assert is_free(path)


def test_what_is_deaf_to_sigterm_is_killed_and_others_are_left_alone() -> None:
    # It also starts anew what is ended below it.
    deaf = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 60; done"]
    marks = {**os.environ, RUN_VARIABLE: f"a-{os.getpid()}"}
    others = {**os.environ, RUN_VARIABLE: f"b-{os.getpid()}"}
    with (
        subprocess.Popen(deaf, env=marks, stdout=subprocess.PIPE) as process,
        subprocess.Popen(["sleep", "60"], env=others) as other,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert end_run(marks[RUN_VARIABLE], 0.3) >= 1
            assert find_processes(marks[RUN_VARIABLE]) == set()
            assert process.wait(5) == -signal.SIGKILL
            assert {found.pid for found in find_processes(others[RUN_VARIABLE])} == {other.pid}
        finally:
            process.kill()
            other.kill()
