"""A stage runs once at a time in a clone."""

import os
from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.runtime.alone import LOCKS, running_alone
from stages.runtime.outputs import WRITING
from stages.runtime.stage import run_stage


def test_a_second_process_is_refused_and_the_first_keeps_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.runtime.alone.WAIT_SECONDS", 0.0)
    monkeypatch.setattr("stages.runtime.stage.signal.signal", lambda *_: None)
    begun = WRITING / "train-x"
    begun.mkdir(parents=True)
    with running_alone("train"):
        with pytest.raises(SystemExit) as caught:
            run_stage("train", lambda params, folder: None)
        assert caught.value.code == 1
        assert begun.exists()
    said = capsys.readouterr().err
    assert f"train runs in this clone already, as process {os.getpid()}\n" in said
    with running_alone("train"), running_alone("tune"):
        pass


def test_a_lock_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".reprise").touch()
    with pytest.raises(UserError, match=f"cannot write {LOCKS}/train.lock"), running_alone("train"):
        pass
