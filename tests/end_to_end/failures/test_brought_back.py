"""Outputs after a stage that failed or was ended: the last ones are back, or said to be lost."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Project, project_environment


@pytest.mark.soak
def test_outputs_that_were_never_committed_come_back_too(clone: Project) -> None:
    clone.edit("params.yaml", "epochs: 30", "epochs: 2")
    clone.repro("train")
    before = clone.outputs()
    assert before != Project(clone.path).run("git", "status", "--porcelain").stdout
    clone.edit("params.yaml", "lr: 3e-3", "lr: 1e30")
    clone.run("dvc", "repro", "--single-item", "train", ok=False)
    assert clone.outputs() == before


def test_without_the_cache_metrics_come_back_from_git(clone: Project) -> None:
    before = clone.outputs()
    # As after `dvc pull`, which fetches no metrics: they lie in git.
    lock = (clone.path / "dvc.lock").read_text(encoding="utf-8").splitlines()
    hidden = 0
    for name, line in zip(lock, lock[2:], strict=False):
        # Those of train are replica 0's too, whose folder git has not.
        if ("metrics.json" in name or "plots/" in name) and "data/train/" not in name:
            digest = line.split()[-1]
            cached = clone.path / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
            if cached.exists():
                os.chmod(cached.parent, 0o755)  # noqa: PTH101
                cached.unlink()
                hidden += 1
    assert hidden > 5
    clone.edit("params.yaml", "lr: 3e-3", "lr: 1e30")
    clone.run("dvc", "repro", "--single-item", "train", ok=False)
    assert clone.outputs() == before


def test_what_was_never_here_is_not_called_lost(clone: Project) -> None:
    # As in a fresh clone: dvc.lock names outputs that nobody has fetched yet.
    shutil.rmtree(clone.path / ".dvc/cache")
    for name in ("model.safetensors", "model.json", "history.csv"):
        (clone.path / "data/train" / name).unlink()
    clone.edit("params.yaml", "batch_size: 64", "batch_size: many")
    said = clone.run("python", "-m", "stages.train", ok=False).stderr
    assert "nothing is lost if this clone never had them" in said
    assert "data/train/model.safetensors" in said
    assert "data/train/metrics.json" not in said
    assert "dvc pull" in said


def test_python_without_docstrings_is_named(clone: Project) -> None:
    before = clone.outputs()
    said = clone.run("python", "-m", "stages.prepare", ok=False, env={"PYTHONOPTIMIZE": "2"})
    assert "unset PYTHONOPTIMIZE, or set it to 1" in said.stderr
    assert "Traceback" not in said.stderr
    assert clone.outputs() == before


FULL = """
import resource
from stages.runtime import stage
def work(params, folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
    (folder / "model.safetensors").write_bytes(bytes(20000))
stage.check_imports = stage.check_versions = lambda stage: None
stage.run_stage("train", work)
"""


def test_where_a_disk_is_full_the_last_outputs_are_not_called_lost(clone: Project) -> None:
    before = clone.outputs()
    for name in ("model.safetensors", "model.json"):
        (clone.path / "data/train" / name).unlink()
    # As one that was killed leaves it.
    (clone.path / "data/train/.history.csv.restoring").touch()
    said = clone.run("python", "-c", FULL, ok=False).stderr
    # The model is larger than what this disk takes.
    assert "(File too large): data/train/model.safetensors\n" in said
    assert "neither" not in said
    after = clone.outputs()
    assert after == {k: v for k, v in before.items() if k != "data/train/model.safetensors"}
    clone.repro()
    assert clone.outputs() == before


def test_a_terminated_stage_brings_its_outputs_back(clone: Project) -> None:
    before = clone.outputs()
    clone.edit("params.yaml", "epochs: 30", "epochs: 3000")
    clone.edit("params.yaml", "patience: 8", "patience: 3000")
    # As `dvc repro` leaves it: the outputs are gone when the command starts.
    for file in Path(clone.path / "data/train").rglob("*"):
        if file.is_file() and file.name != ".gitignore":
            file.unlink()
    process = subprocess.Popen(
        ["python", "-m", "stages.train"],
        cwd=clone.path,
        env=project_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    deadline = time.monotonic() + 60
    while "epoch" not in process.stdout.readline():
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    # Less than the stop takes that is said again: TensorBoard's writer must not hold it up.
    process.communicate(timeout=20)
    # It has kept where it was, and can go on from there.
    assert process.returncode == 75
    assert clone.outputs() == before


DEAF = """
import time
from stages.runtime import stage
stage.STOP_AGAIN_SECONDS = 0.2
def work(params, folder):
    (folder / "half").touch()
    for attempt in range(2):
        try:
            print("working", flush=True)
            time.sleep(30)
        except SystemExit:
            print("lost", flush=True)
    time.sleep(30)
stage.check_imports = stage.check_versions = lambda stage: None
stage.run_stage("evaluate", work)
"""


def test_a_stop_that_a_library_swallows_is_said_again(clone: Project) -> None:
    before = clone.outputs()
    process = subprocess.Popen(
        ["python", "-c", DEAF],
        cwd=clone.path,
        env=project_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert said.count("lost") == 2
    assert process.returncode == 143
    assert clone.outputs() == before
