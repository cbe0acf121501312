"""A training that is killed resumes from its checkpoint and ends with the same bytes."""

import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support import killed
from tests.support.samples import training

# So small a step has one thread in the stage, too.
pytestmark = pytest.mark.usefixtures("one_thread")


def saved_by(project: Project) -> list[Path]:
    return list((project.path / ".reprise/checkpoints").glob("*/[0-9]*-*.p*t"))


def kill_and_go_on(trained: Project, num_kills: int, seed: int, **variables: str) -> None:
    """Kill a training at random moments; when it ends at last its outputs are the same bytes."""
    folder = trained.path / "data/train"
    before = {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}
    moments = random.Random(seed)
    resumed = killed = 0
    while killed < num_kills:
        with training(trained, **variables) as process:
            assert process.stdout is not None
            said = ""
            # From the first sign of the loop on: what comes before it has nothing to lose.
            for line in process.stdout:
                said += line
                if line.startswith("epoch"):
                    break
            # Not before there is something to resume from, if it has not ended by then.
            while process.poll() is None and not saved_by(trained):
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 0.6))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
        resumed += "resumes from" in said
    with training(trained, **variables) as process:
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
    resumed += "resumes from" in said
    assert resumed >= max(1, num_kills // 2)
    after = {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}
    assert after == before
    left = [p.name for p in (trained.path / ".reprise/checkpoints").iterdir() if p.is_dir()]
    assert left == [], "a training that has ended leaves nothing to resume from"


@pytest.mark.soak
def test_a_killed_training_ends_with_the_same_bytes_every_time(trained: Project) -> None:
    kill_and_go_on(trained, 20, seed=2)


@pytest.mark.soak
def test_two_killed_processes_end_with_the_same_bytes_every_time(
    trained: Project, tmp_path: Path
) -> None:
    trained.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"})
    kill_and_go_on(trained, 20, seed=3, PET_NPROC_PER_NODE="2")
    trained.run("python", "-m", "stages.train")


# What is killed in the middle, and the process of two that is.
MOMENTS = {"save": "0", "validation": "1", "step": "1", "write": "0"}


def outputs(project: Project) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in (project.path / "data/train").iterdir() if f.is_file()}


def test_a_training_killed_in_the_middle_of_anything_ends_with_the_same_bytes(
    trained: Project,
) -> None:
    before, moments = outputs(trained), ",".join((*MOMENTS, "end"))
    with training(trained, runner=(killed.__file__,), KILL_AT=moments) as process:
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0, said
    first, *parts = re.split("|".join(f"^{moment}: -9$" for moment in MOMENTS), said, flags=re.M)
    assert "resumes from" not in first
    assert ["resumes from" in part for part in parts] == [True] * len(MOMENTS), said
    assert outputs(trained) == before


def kill_in_the_middle(trained: Project, folder: Path) -> None:
    """Kill two processes in the middle of each moment; at last the outputs are the same bytes."""
    before, runner = outputs(trained), folder / "python"
    runner.write_text(f'#!/bin/sh\nexec {sys.executable} {killed.__file__} "$@"\n')
    runner.chmod(0o755)
    two = {"PET_NPROC_PER_NODE": "2", "PYTHON_EXEC": str(runner)}
    for number, (moment, rank) in enumerate({**MOMENTS, "end": "0"}.items()):
        with training(trained, KILL_AT=moment, KILL_RANK=rank, **two) as process:
            said = process.communicate(timeout=120)[0]
            assert process.returncode == (0 if moment == "end" else -signal.SIGKILL), said
        assert ("resumes from" in said) == (number > 0), said
    assert outputs(trained) == before


@pytest.mark.soak
def test_two_processes_killed_in_the_middle_of_anything_end_with_the_same_bytes(
    trained: Project, tmp_path: Path
) -> None:
    trained.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"})
    kill_in_the_middle(trained, tmp_path)
    trained.run("python", "-m", "stages.train")


@pytest.mark.soak
def test_two_killed_processes_that_divide_the_weights_end_with_the_same_bytes_every_time(
    divided: Project,
) -> None:
    kill_and_go_on(divided, 20, seed=4, PET_NPROC_PER_NODE="2")


@pytest.mark.soak
def test_two_that_divide_the_weights_killed_in_the_middle_of_anything(
    divided: Project, tmp_path: Path
) -> None:
    kill_in_the_middle(divided, tmp_path)
