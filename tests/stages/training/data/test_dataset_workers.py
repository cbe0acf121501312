"""The workers of a dataset: their errors, and how they end."""

import os
import select
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from stages.common.errors import UserError
from stages.train.checkpoints.checkpointer import PREEMPTED
from stages.training.data.batching import epoch_batches
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, set_params, small_project, training
from tests.support.training.datasets import MINE, PLAIN, Write, load, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_in_a_worker_is_told_with_the_key_of_the_row(
    write: Write, num_workers: int
) -> None:
    write(f"if row == 33: raise OSError('no such file')\n{PLAIN}")
    with pytest.raises(UserError, match="the row 'row 33': OSError: no such file"):
        run(load(num_workers))


# The loader looks after its workers every five seconds.
@pytest.mark.soak
def test_a_worker_that_dies_is_told(write: Write) -> None:
    write(f"if row == 33: os._exit(3)\n{PLAIN}")
    with pytest.raises(UserError, match="a worker has died") as caught:
        run(load(num_workers=2))
    assert caught.value.problems[0].key == "train.dataset.num_workers"


def test_workers_end_at_once_with_a_training_that_is_killed(write: Write) -> None:
    # Else they hold what it held, the lock of its checkpoints too, until they look after it.
    write(PLAIN)
    data = load(num_workers=2)
    read, theirs = os.pipe()

    def train_until_killed() -> None:
        feed = data.train.feed(epoch_batches(len(data.train), 8, 0, 1), 0)
        next(feed)
        os.write(theirs, b"1")
        time.sleep(60)

    process = get_context("fork").Process(target=train_until_killed)
    process.start()
    os.close(theirs)
    assert os.read(read, 1) == b"1"
    process.kill()
    process.join()
    # They have the other end of the pipe as well.
    ended, _, _ = select.select([read], [], [], 2.0)
    os.close(read)
    assert ended


# A millisecond of work for each row.
SLOW = """
sum(range(50_000))
if self.train:
    features["numeric"] += random.gauss(0, 0.1)
return features, target
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project with a dataset of its own, of which everything before train has run."""
    changes = {"train.dataset": {"name": "mine", "num_workers": 2}, "train.epochs": 6}
    project = small_project(tmp_path / "project", mixed_table(), {**changes, "train.batch_size": 8})
    run_stages(project, "prepare", "build")
    body = "\n".join(f"        {line}" for line in SLOW.strip().splitlines())
    mine = project.path / "stages/zoo/datasets/mine.py"
    mine.write_text(f"{MINE}{body}\n", encoding="utf-8")
    project.run("python", "-m", "stages.tune")
    return project


@pytest.mark.soak
def test_workers_that_are_told_to_stop_have_a_step_to_finish(project: Project) -> None:
    variables = {"REPRISE_CHECKPOINT_SECONDS": "1000", "OMP_NUM_THREADS": "1"}
    said = project.run("python", "-m", "stages.train", env=variables).stdout
    assert "data by mine, 2 workers" in said
    expected = project.outputs()
    # At several moments of an epoch: when workers begin, and when they work.
    for seconds in (0.0, 0.03, 0.06):
        with training(project, **variables) as process:
            assert process.stdout is not None
            next(line for line in process.stdout if line.startswith("epoch"))
            time.sleep(seconds)
            # To each process of the group, as a scheduler does: to the workers too.
            os.killpg(process.pid, signal.SIGTERM)
            said = process.communicate(timeout=60)[0]
        assert process.returncode == PREEMPTED, said
        until = time.monotonic() + 10
        while is_there(process.pid) and time.monotonic() < until:
            time.sleep(0.1)
        assert not is_there(process.pid), "nothing of it is left"
    assert "resumes from" in project.run("python", "-m", "stages.train", env=variables).stdout
    assert project.outputs() == expected


@pytest.mark.soak
def test_two_processes_with_workers_train_as_one_without(project: Project) -> None:
    set_params(project, {"build.model": {"name": "linear"}})
    run_stages(project, "build")
    project.run("python", "-m", "stages.tune")
    project.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"})
    together = load_file(project.path / "data/train/model.safetensors")
    set_params(project, {"train.dataset.num_workers": 0})
    project.run("python", "-m", "stages.train")
    for name, weight in load_file(project.path / "data/train/model.safetensors").items():
        np.testing.assert_allclose(together[name], weight, rtol=1e-4, atol=1e-6)


def is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
