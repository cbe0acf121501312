"""The stage is told to stop, or gets a Ctrl-C: it can go on, and leaves nothing."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from stages.train.checkpoints.checkpoint import checkpoint_key, lock_checkpoints
from stages.train.checkpoints.checkpointer import PREEMPTED
from tests.conftest import Project, project_environment
from tests.support.samples import training

# So small a step has one thread in the stage, too.
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.soak
def test_told_to_stop_two_processes_that_divide_the_weights_can_go_on(divided: Project) -> None:
    stop_and_go_on(divided, "2")


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.soak)])
def test_told_to_stop_it_says_that_it_can_go_on(trained: Project, processes: str) -> None:
    stop_and_go_on(trained, processes)


def stop_and_go_on(trained: Project, processes: str) -> None:
    """Tell a training to stop, which leaves a checkpoint; the next one resumes from there."""
    several = {"PET_NPROC_PER_NODE": processes, "REPRISE_CHECKPOINT_SECONDS": "1000"}
    with training(trained, **several) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("epoch"))
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == PREEMPTED, said
    assert "the next run resumes from the last checkpoint" in said
    with training(trained, **several) as process:
        assert process.stdout is not None
        assert any("resumes from" in line for line in process.stdout)


@pytest.mark.soak
@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_leaves_a_checkpoint_and_nothing_else(trained: Project, processes: str) -> None:
    several = {"PET_NPROC_PER_NODE": processes, "REPRISE_CHECKPOINT_SECONDS": "1000"}
    with training(trained, **several) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("epoch"))
        family = psutil.Process(process.pid).children(recursive=True)
        # As a terminal does: to all of the group.
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 130, said
        assert psutil.wait_procs(family, timeout=5)[1] == []
    assert "the next run resumes from the last checkpoint" in said
    assert "interrupted; the last outputs are back in place" in said
    assert "Traceback" not in said
    with training(trained, **several) as process:
        assert process.stdout is not None
        assert any("resumes from" in line for line in process.stdout)


@pytest.mark.soak
@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_ends_dvc_with_all_that_it_has_started(
    trained: Project, tmp_path: Path, processes: str
) -> None:
    project, environment = Project(tmp_path / "copy"), project_environment()
    shutil.copytree(trained.path, project.path)
    # What DVC takes for the file of a parameter that is null.
    (project.path / "None").touch()
    project.run("dvc", "init", "--no-scm", "--force")
    project.run("dvc", "repro", "--single-item", "prepare", "build", "tune")
    environment |= {"PET_NPROC_PER_NODE": processes, "REPRISE_CHECKPOINT_SECONDS": "1000"}
    command = ["dvc", "repro", "--single-item", "train"]
    said = []
    for interrupted in (True, False):
        with subprocess.Popen(
            command,
            cwd=project.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            lines = list(iter_until(process.stdout, "epoch"))
            family = psutil.Process(process.pid).children(recursive=True)
            if interrupted:
                os.killpg(process.pid, signal.SIGINT)
            said.append("".join(lines) + process.communicate(timeout=120)[0])
        assert (process.returncode != 0) == interrupted, said[-1]
        assert psutil.wait_procs(family, timeout=5)[1] == []
    assert "Traceback" not in said[0]
    assert "the next run resumes from the last checkpoint" in said[0]
    assert "resumes from" in said[1]


def iter_until(lines: Iterable[str], begins: str) -> Iterator[str]:
    """The lines up to the first that begins so, with it."""
    for line in lines:
        yield line
        if line.startswith(begins):
            return


def test_told_to_stop_without_a_checkpoint_it_does_not_say_that_it_can_go_on(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.path)
    # Another run has the folder: this one keeps none.
    with lock_checkpoints(checkpoint_key(1)), training(trained) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("epoch"))
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "resumes" not in said
