"""The record of a stage that has not ended well: what it holds, what it keeps to itself."""

import json
import os
import sys
from pathlib import Path

import pytest

from pipeline.doctor.attempts import Attempt, read_attempts
from stages.common.errors import Problem, UserError
from stages.runtime.attempt import ATTEMPTS, MAX_TEXT, count_kills, noted_attempt


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("train:\n  lr: 3\n", encoding="utf-8")


def noted(error: BaseException, cause: BaseException | None = None) -> Attempt:
    with pytest.raises(type(error)), noted_attempt("train"):
        raise error from cause
    (attempt,) = read_attempts()
    return attempt


def test_a_stage_that_ends_well_leaves_nothing() -> None:
    noted(OSError(28, "No space left on device"))
    with noted_attempt("train"):
        (running,) = read_attempts()
        assert running.state == "running"
        assert running.is_alive
        assert running.is_of_now
    assert list(read_attempts()) == []


def test_an_error_is_kept_with_what_it_came_of_and_where() -> None:
    attempt = noted(UserError(Problem("too high", key="train.lr", value="3")), ValueError("is 3"))
    assert attempt.text == "too high\n  edit     params.yaml:2  train.lr: 3\nValueError: is 3"
    assert attempt.facts["keys"] == ["train.lr"]
    assert attempt.state == "failed"
    Path("params.yaml").write_text("train:\n  lr: 2\n", encoding="utf-8")
    assert not attempt.is_of_now
    (line,) = [line for line in noted(KeyError("x")).facts["frames"] if " in noted" in line][-1:]
    assert "test_attempt.py:" in line


@pytest.mark.parametrize(
    ("error", "state"), [(SystemExit(75), "stopped"), (KeyboardInterrupt(), "interrupted")]
)
def test_what_was_told_to_stop_has_not_failed(error: BaseException, state: str) -> None:
    assert noted(error).state == state


def test_no_password_no_endless_text_no_broken_letter_is_kept() -> None:
    said = noted(ValueError(f"postgresql://ada:secret@db/x \udc80 {'y' * 10_000}")).text
    assert "secret" not in said
    assert "postgresql://***@db/x ?" in said
    assert len(said) < MAX_TEXT + 50


def test_a_record_of_a_process_that_has_gone_is_of_one_that_was_killed() -> None:
    ATTEMPTS.mkdir(parents=True)
    facts = {"stage": "train", "state": "running", "started": 1.0, "pid": os.getpid()}
    (ATTEMPTS / "train.json").write_text(json.dumps(facts), encoding="utf-8")
    # Another process has its number by now: this one began long after it.
    (attempt,) = read_attempts()
    assert not attempt.is_alive
    (ATTEMPTS / "train.json").write_text("{", encoding="utf-8")
    assert list(read_attempts()) == []


def test_a_folder_that_can_not_be_written_is_no_failure() -> None:
    Path(".reprise").touch()
    with noted_attempt("train"):
        pass
    with pytest.raises(ZeroDivisionError), noted_attempt("train"):
        sys.exit(1 // 0)


def test_kills_of_the_control_group_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / "memory.events"
    monkeypatch.setattr("stages.runtime.attempt.EVENTS", events)
    assert count_kills() is None
    events.write_text("low 0\noom 3\noom_kill 2\n", encoding="utf-8")
    assert count_kills() == 2
    attempt = noted(ValueError())
    events.write_text("oom_kill 5\n", encoding="utf-8")
    assert attempt.kills == 3
