"""Replicas: the same recipe under several seeds, none of which knows of the others."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from stages.common.errors import Problem, UserError
from stages.common.files import read_csv
from stages.model.model import ModelSpec
from stages.train.checkpoints.checkpointer import PREEMPTED
from stages.train.launch import PROBLEMS
from stages.train.recipe import Trainings
from stages.train.replicas import num_at_once, train_all
from stages.training.recipe import seed_of, seed_of_fold
from tests.conftest import Project
from tests.support.samples import (
    mixed_table,
    run_stages,
    set_params,
    small_project,
    trained_files,
    training,
)
from tests.support.training.said import read_until

CHANGES = {
    "train.epochs": 30,
    "train.early_stopping": {"metric": "loss", "patience": None},
    "build.model": {"name": "mlp", "width": 8, "dropout": 0.2},
    # A pack comes to other bits: `test_members.py`.
    "train.packed": False,
}
# The rule would have trainings this short follow one another.
IN_PROCESSES = {"REPRISE_AT_ONCE": "2"}
# Each then asks for all cores; tensors this small are computed by one thread all the same.
ONE_AT_A_TIME = {"REPRISE_THREADS": str(os.cpu_count()), "REPRISE_CHECKPOINT_SECONDS": "0"}
SERVED = ("model.safetensors", "model.json", "history.csv", "metrics.json", "plots/loss.csv")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project before its training."""
    made = small_project(tmp_path_factory.mktemp("replicas"), mixed_table(400), CHANGES)
    run_stages(made, "prepare", "build", "tune")
    return made


@pytest.fixture(scope="module")
def three(project: Project) -> dict[str, bytes]:
    """What three replicas write when nothing interrupts them."""
    set_params(project, {"train.replicas": 3})
    said = project.run("python", "-m", "stages.train", env=IN_PROCESSES).stdout
    assert "3 replicas, 2 at once" in said
    assert "replica 2 │ best epoch" in said
    return trained_files(project)


def test_seeds_are_apart_and_a_row_of_the_table_can_be_trained_again() -> None:
    seeds = [seed_of(seed, replica) for seed in (0, 1, 2**32 - 1) for replica in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 2**32
    assert [seed_of(7, 0), seed_of(7, 1)] == [7, seed_of(7, 1)]
    folds = [seed_of_fold(seed_of(7, replica), k) for replica in range(20) for k in range(20)]
    assert len(set(folds)) == len(folds)
    assert folds[:2] == [7, seed_of_fold(7, 1)]


def test_as_many_at_once_as_the_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ModelSpec(
        name="mlp",
        arguments={"width": 8, "dropout": 0.0},
        inputs={"numeric": [4]},
        num_outputs=2,
    )
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert num_at_once(spec, batch_size=16, num_processes=1) == 8
    assert num_at_once(spec, batch_size=16, num_processes=2) == 1
    # A step so large that it takes all cores.
    assert num_at_once(spec, batch_size=10**6, num_processes=1) == 1
    monkeypatch.setenv("REPRISE_THREADS", "3")
    assert num_at_once(spec, batch_size=16, num_processes=1) == 2
    monkeypatch.setenv("REPRISE_DEVICE", "cuda:1")
    assert num_at_once(spec, batch_size=16, num_processes=1) == 1


def test_the_served_model_is_replica_0_and_knows_nothing_of_the_others(
    project: Project, three: dict[str, bytes]
) -> None:
    rows = read_csv(project.path / "data/train/replicas/seeds.csv")
    assert [row["replica"] for row in rows] == ["0", "1", "2"]
    assert len({row["validation_loss"] for row in rows}) == 3
    for name in SERVED:
        assert three[name] == three[f"replicas/0/{name}"]
        assert three[name] != three[f"replicas/1/{name}"] or name == "model.json"
    # One after the other in the stage's own process they have the same bits.
    run_stages(project, "train")
    assert trained_files(project) == three
    # Alone it has them, too.
    set_params(project, {"train.replicas": 1})
    run_stages(project, "train")
    alone = trained_files(project)
    assert {name: alone[name] for name in SERVED} == {name: three[name] for name in SERVED}
    assert [name for name in alone if name.startswith("replicas/")] == ["replicas/seeds.csv"]
    # Its number is not in a replica's bits either: its seed alone trains it again.
    set_params(project, {"seed": int(rows[1]["seed"])})
    run_stages(project, "build", "train")
    again = trained_files(project)
    assert again["model.safetensors"] == three["replicas/1/model.safetensors"]
    set_params(project, {"seed": 0})
    run_stages(project, "build")


def members(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


@pytest.mark.soak
def test_killed_and_told_to_stop_they_go_on_and_end_with_the_same_bytes(
    project: Project, three: dict[str, bytes]
) -> None:
    # One after the other: one has ended, one is at it, one has not begun.
    set_params(project, {"train.replicas": 3})
    with training(project, **ONE_AT_A_TIME) as process:
        read_until(process, "replica 0 │ best epoch")
        read_until(process, "replica 1 │ epoch")
        # The stage alone: whoever trains for it must notice.
        process.kill()
        process.wait(timeout=60)
        until = time.monotonic() + 10
        while members(process.pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert members(process.pid) == []
    with training(project, **ONE_AT_A_TIME) as process:
        said = read_until(process, "resumes from")
        said += read_until(process, "│ epoch")
        process.send_signal(signal.SIGTERM)
        said += process.communicate(timeout=60)[0]
        assert process.returncode == PREEMPTED, said
        assert members(process.pid) == []
    done = project.run("python", "-m", "stages.train", env=ONE_AT_A_TIME)
    assert "1 of 3 trainings have ended before" in done.stdout
    assert "replica 0 │" not in done.stdout
    assert trained_files(project) == three
    left = [p.name for p in (project.path / ".reprise/checkpoints").iterdir() if p.is_dir()]
    assert left == []


def _no_folds(_folds: Sequence[Path], _out: Path) -> None:
    raise AssertionError("replicas are not joined")


def test_a_replica_that_fails_ends_all_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []

    def start_fake(_processes: int, replica: int, out: Path, *_: object) -> Any:
        fails = "import os, sys; print('about to'); sys.stdout.flush(); os.abort()"
        if failing == "mistake":
            problem = [{**asdict(Problem("too large", "train.optimizer.lr", "1e9"))}]
            left = str(out / PROBLEMS.replace("*", "0"))
            fails = f"open({left!r}, 'w').write({json.dumps(problem)!r})"
        code = fails if replica == 1 else "import time; time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        started.append(process)
        return process

    monkeypatch.setattr("stages.train.replicas.start", start_fake)
    for failing in ("mistake", "crash"):
        started.clear()
        (tmp_path / failing).mkdir()
        with pytest.raises(UserError) as raised:
            train_all(Trainings(3, 0), 2, 1, tmp_path / failing, None, _no_folds)
        problem = raised.value.problems[0]
        if failing == "mistake":
            assert problem.message == "replica 1: too large"
            assert (problem.key, problem.value) == ("train.optimizer.lr", "1e9")
        else:
            assert problem.message == "replica 1 failed (exit code -6); see above"
            assert "replica 1 │ about to\n" in capsys.readouterr().out
        # The other one has been ended, the third was never begun.
        assert [process.poll() for process in started] == [-signal.SIGTERM, started[1].poll()]
        assert list((tmp_path / failing).iterdir()) == []


def test_a_replica_that_is_told_to_stop_stops_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_fake(*_: object) -> Any:
        code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)

    monkeypatch.setattr("stages.train.replicas.start", start_fake)
    with pytest.raises(SystemExit):
        train_all(Trainings(2, 0), 1, 1, tmp_path, None, _no_folds)
