"""Several processes that are lost one by one, and several machines, end as if nothing had been."""

import json
import random
import socket
import subprocess
import threading
import time
from pathlib import Path

import psutil
import pytest

from stages.common.files import read_csv
from tests.conftest import Project
from tests.support.samples import mixed_table, ready_to_train, run_stages, set_params, training


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project that train can begin with: dropout, an average, parts of batches."""
    changes = {
        "train.epochs": 60,
        "train.schedule": {"name": "warmup_cosine"},
        "build.model": {"name": "mlp", "width": 8, "dropout": 0.2},
        "train.ema": 0.99,
        "train.micro_batch_size": 50,
    }
    return ready_to_train(tmp_path_factory.mktemp("built"), changes, mixed_table(400))


def outputs(project: Project) -> dict[str, bytes]:
    folder = project.path / "data/train"
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The processes that train, the first of them first."""
    family = psutil.Process(process.pid).children(recursive=True)
    found = [p for p in family if p.cmdline()[1:4] == ["-u", "-m", "stages.train.worker"]]
    return sorted(found, key=lambda p: int(p.environ()["RANK"]))


def kill_workers(
    project: Project, process: "subprocess.Popen[str]", num_kills: int, seed: int = 0
) -> str:
    """Kill one of the workers, each time soon after they have begun to train; what was said."""
    assert process.stdout is not None
    moments, killed, fresh, said = random.Random(seed), 0, True, ""

    def kill(victim: psutil.Process, seconds: float) -> None:
        # Not before there is something to resume from.
        until = time.monotonic() + 20
        while not list((project.path / ".reprise/checkpoints").glob("*/*-*.p*t")):
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(seconds)
        victim.kill()

    for line in process.stdout:
        said += line
        fresh = fresh or "started again" in line
        if fresh and killed < num_kills and line.startswith("epoch"):
            victims = workers_of(process)
            given = (victims[killed % len(victims)], moments.uniform(0, 0.4))
            threading.Thread(target=kill, args=given).start()
            killed, fresh = killed + 1, False
    assert process.wait(60) == 0, said
    assert said.count("started again") == killed == num_kills, said
    return said


def train_on_two_machines(first: Project, second: Project, num_kills: int, **variables: str) -> str:
    """One training in two clones that meet on loopback; what they said."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    meet = {
        "PET_NNODES": "2",
        "PET_RDZV_ENDPOINT": endpoint,
        "PET_NPROC_PER_NODE": "1",
        "PET_LOCAL_ADDR": "127.0.0.1",
    }
    with training(first, **meet, **variables) as one, training(second, **meet, **variables) as two:
        heard: list[str] = []
        thread = threading.Thread(target=lambda: heard.append(one.communicate(timeout=500)[0]))
        thread.start()
        said = kill_workers(second, two, num_kills)
        thread.join()
        said += heard[0]
        assert (one.returncode, two.returncode) == (0, 0), said
    assert said.count(f"waits for 2 machines to meet at {endpoint}") == 2
    return said


def losses_of(project: Project) -> list[float]:
    rows = read_csv(project.path / "data/train/history.csv")
    return [float(row["train_loss"]) for row in rows]


@pytest.mark.soak
def test_two_machines_of_which_one_loses_its_process_train_as_one(
    built: Project, tmp_path: Path
) -> None:
    run_stages(built, "train")
    alone = losses_of(built)
    subprocess.run(["cp", "-r", built.path, tmp_path / "clone"], check=True)
    clone = Project(tmp_path / "clone")
    said = train_on_two_machines(built, clone, num_kills=1, PET_MAX_RESTARTS="1")
    assert "2 processes on 2 machines" in said
    assert "resumes from" in said
    assert outputs(built) == outputs(clone)
    assert losses_of(built) == pytest.approx(alone, rel=1e-4)
    left = [p.name for p in (built.path / ".reprise/checkpoints").iterdir() if p.is_dir()]
    assert left == []


# The second process finds its memory full for more than 16 rows, after some calls of the model.
HUNGRY = """
        import os
        import torch

        self.calls = getattr(self, "calls", 0) + self.training
        many = len(next(iter(batch.values()))) > 16
        if many and self.training and self.calls > int(os.environ.get("CALLS", "9999")):
            if os.environ.get("RANK") == "1":
                raise torch.OutOfMemoryError("CUDA out of memory")
"""


def hungry(built: Project, folder: Path) -> Project:
    """A clone that takes 32 rows at once in each of two processes, as long as it can."""
    subprocess.run(["cp", "-r", built.path, folder], check=True)
    project = Project(folder)
    model = folder / "stages/zoo/models/mlp.py"
    head, doc, tail = model.read_text(encoding="utf-8").partition(
        '"""Scores (rows, num_outputs)."""'
    )
    model.write_text(head + doc + HUNGRY + tail, encoding="utf-8")
    set_params(project, {"train.batch_size": 64, "train.micro_batch_size": None})
    return project


@pytest.mark.soak
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("calls", ["0", "150"])
def test_where_the_memory_of_one_process_is_full_all_take_fewer_rows(
    built: Project, tmp_path: Path, calls: str, parallel: str
) -> None:
    project, two = hungry(built, tmp_path / "clone"), {"PET_NPROC_PER_NODE": "2"}
    set_params(project, {"train.parallel": parallel, "train.epochs": 60})
    with training(project, **two, CALLS=calls) as process:
        said = process.communicate(timeout=200)[0]
    assert process.returncode == 0, said
    assert said.count("process 1 is out of memory with 32 rows at once; try 16") == 1
    assert said.count("out of memory with 32 rows at once: 16 from here on") == 1
    assert said.count("started again") == 1
    assert ("resumes from" in said) == (calls != "0")
    ours, losses = outputs(project), losses_of(project)
    assert json.loads(ours["recipe.json"])["train"]["micro_batch_size"] == 16
    left = [p.name for p in (project.path / ".reprise/checkpoints").iterdir() if p.is_dir()]
    assert left == []
    set_params(project, {"train.micro_batch_size": 16})
    project.run("python", "-m", "stages.train", env=two)
    if calls == "0":
        # It was met before the first step, so all is as if it had been asked for.
        assert ours == outputs(project)
    assert losses == pytest.approx(losses_of(project), rel=1e-4)


@pytest.mark.soak
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_lost_process_changes_no_byte_every_time(built: Project, parallel: str) -> None:
    set_params(built, {"train.parallel": parallel})
    built.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"})
    before = outputs(built)
    with training(built, PET_NPROC_PER_NODE="2", PET_MAX_RESTARTS="20") as process:
        said = kill_workers(built, process, 20, seed=1)
    assert said.count("resumes from") >= 19
    assert outputs(built) == before


@pytest.mark.soak
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_process_lost_on_one_of_two_machines_changes_no_byte(
    built: Project, tmp_path: Path, parallel: str
) -> None:
    set_params(built, {"train.parallel": parallel})
    built.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"})
    before = outputs(built)
    subprocess.run(["cp", "-r", built.path, tmp_path / "clone"], check=True)
    clone = Project(tmp_path / "clone")
    train_on_two_machines(built, clone, num_kills=5, PET_MAX_RESTARTS="5")
    assert outputs(built) == outputs(clone) == before


@pytest.mark.soak
def test_nothing_is_left_of_several_processes_when_the_stage_is_killed(built: Project) -> None:
    two = {"PET_NPROC_PER_NODE": "2", "REPRISE_CHECKPOINT_SECONDS": "1000"}
    with training(built, **two) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("epoch"))
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(workers_of(process)) == 2
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=15)
        assert alive == []
