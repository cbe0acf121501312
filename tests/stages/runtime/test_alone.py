"""A stage runs once at a time in a clone."""

import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path

import pytest

from stages.common.errors import UserError
from stages.locks import hold
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
    # As DVC leaves it: the output is in its cache, and gone from its place.
    content = b"trained"
    digest = hashlib.md5(content).hexdigest()
    entry = {"train": {"outs": [{"path": "data/train/model", "md5": digest}]}}
    Path("dvc.lock").write_text(json.dumps({"stages": entry}), encoding="utf-8")
    cached = Path(".dvc/cache/files/md5") / digest[:2] / digest[2:]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    with running_alone("train"):
        with pytest.raises(SystemExit) as caught:
            run_stage("train", lambda params, folder: None)
        assert caught.value.code == 1
        assert begun.exists()
        assert Path("data/train/model").read_bytes() == content
    said = capsys.readouterr().err
    assert f"train runs in this clone already, as process {os.getpid()}\n" in said
    with running_alone("train"), running_alone("tune"):
        pass


def test_who_holds_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.runtime.alone.WAIT_SECONDS", 0.0)
    LOCKS.mkdir(parents=True)
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout.strip()
    held = hold(LOCKS / "train.lock")
    assert held is not None
    with held:
        for holder, said in {
            f"{gone} {platform.node()}": f"that process {gone} has left behind",
            "7 elsewhere": "as process 7 of the machine 'elsewhere'",
        }.items():
            (LOCKS / "train.lock").write_text(holder, encoding="utf-8")
            with pytest.raises(UserError, match=said), running_alone("train"):
                pass


def test_a_lock_that_cannot_be_taken_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".reprise").touch()
    with pytest.raises(UserError, match=f"cannot lock {LOCKS}/train.lock"), running_alone("train"):
        pass
