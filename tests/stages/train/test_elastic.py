"""Several processes that are lost one by one, and several machines, end as if nothing had been."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages.common.errors import Problem, UserError
from stages.common.files import read_csv
from stages.train import worker
from stages.train.checkpoints.checkpoint import newest
from stages.train.launch import PROBLEMS, STOPPED, hand_over, launch, note_loss, raise_problems
from stages.training.device.distributed import World
from stages.training.device.environment import num_nodes
from stages.training.device.out_of_memory import ProcessOutOfMemoryError, read_oom_hints
from tests.conftest import Project
from tests.support.samples import mixed_table, ready_to_train, run_stages, set_params, training

TORCHRUN = {
    "RANK": "1",
    "LOCAL_WORLD_SIZE": "1",
    "GROUP_WORLD_SIZE": "2",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "3",
}


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


def test_what_lost_processes_have_said_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    # Of an earlier attempt.
    note_loss("process 0 has lost the others: old", kept, 0)

    class Torchrun:
        def wait(self) -> int:
            note_loss("process 1 has lost the others: Connection closed by peer", kept, 1)
            return 1

    monkeypatch.setattr("stages.train.launch.start", lambda *_: Torchrun())
    with pytest.raises(UserError) as caught:
        launch(2, tmp_path, kept)
    assert str(caught.value).splitlines() == [
        "training in several processes failed (torchrun: 1); see above",
        "  process 1 has lost the others: Connection closed by peer",
    ]
    note_loss("nobody keeps anything", None, 0)


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


def test_without_the_stage_a_process_ends_and_torchrun_with_it() -> None:
    read, stage = os.pipe()

    def work() -> None:
        os.close(stage)
        os.dup2(read, 0)
        os.environ["RANK"] = "0"
        worker.end_with_the_stage()
        time.sleep(60)

    def start_work() -> None:
        os.close(stage)
        one = get_context("fork").Process(target=work)
        one.start()
        # As torchrun does, which would start it again.
        one.join()
        time.sleep(60)

    torchrun = get_context("fork").Process(target=start_work)
    torchrun.start()
    torchrun.join(0.3)
    assert torchrun.is_alive()
    os.close(stage)
    torchrun.join(5.0)
    os.close(read)
    assert torchrun.exitcode == -signal.SIGTERM


def told(out: Path) -> tuple[Problem, ...]:
    with pytest.raises(UserError) as raised:
        raise_problems(out)
    return raised.value.problems


@pytest.fixture
def one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process of two, on a machine of its own, that has met the first."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(worker, "join", lambda: World(1, 2, 2))
    monkeypatch.setattr(worker, "agree", lambda _world, _out, checkpoints: checkpoints)
    monkeypatch.setattr(worker, "join_stage", lambda _: None)
    monkeypatch.setattr(worker, "read_recipe", lambda _: None)


@pytest.mark.usefixtures("one_of_two")
@pytest.mark.parametrize("number", ["0", "3"])
@pytest.mark.parametrize("keeps", [True, False])
def test_a_full_memory_is_noted_or_where_nobody_begins_again_told(
    number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, keeps: bool
) -> None:
    def fail(*_: object) -> None:
        raise ProcessOutOfMemoryError(1, 7, 4, None)

    out, checkpoints = tmp_path / "out", tmp_path / "checkpoints"
    out.mkdir()
    checkpoints.mkdir()
    monkeypatch.setattr(worker, "fit", fail)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", number)
    with pytest.raises(SystemExit) as raised:
        worker.train_with_others(0, out, checkpoints if keeps else None)
    assert raised.value.code == 1
    if keeps and number == "0":
        assert not list(out.iterdir())
        assert read_oom_hints(checkpoints, None, World()) == 4
    else:
        assert not list(checkpoints.iterdir())
        assert "out of memory with 7 rows at once; try 4" in told(out)[0].message
        assert told(out)[0].key == "train.micro_batch_size"


@pytest.mark.usefixtures("one_of_two")
@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        # Started again: the others may come back.
        (RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection reset by peer"), 1, None),
        (UserError("too small a memory"), 1, "too small a memory"),
        # What would come again: the restarted ones hear of it and end.
        (ZeroDivisionError("no rows"), None, "process 1 failed with ZeroDivisionError: no rows"),
    ],
)
def test_a_lost_process_is_tried_again_and_a_mistake_is_told(
    error: Exception,
    code: int | None,
    says: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "fit", fail)
    with pytest.raises(SystemExit if code else type(error)) as raised:
        worker.train_with_others(0, tmp_path, None)
    if isinstance(raised.value, SystemExit):
        assert raised.value.code == code
    if says is None:
        assert not list(tmp_path.glob(PROBLEMS))
    else:
        assert says in told(tmp_path)[0].message


def test_where_torchrun_itself_is_killed_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_killed(*_: object) -> Any:
        code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        return subprocess.Popen([sys.executable, "-c", code])

    monkeypatch.setattr("stages.train.launch.start", start_killed)
    with pytest.raises(UserError, match=r"torchrun was ended by SIGKILL.*resumes from the last"):
        launch(2, tmp_path, None)


@pytest.mark.usefixtures("one_of_two")
def test_told_to_stop_it_leaves_a_mark_until_it_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        sys.exit(75)

    monkeypatch.setattr(worker, "fit", stop)
    with pytest.raises(SystemExit):
        worker.train_with_others(0, tmp_path, None)
    assert (tmp_path / STOPPED).exists()
    monkeypatch.setattr(worker, "fit", lambda *_: None)
    monkeypatch.setattr(worker.dist, "barrier", lambda: None)
    monkeypatch.setattr(worker.dist, "destroy_process_group", lambda: None)
    worker.train_with_others(0, tmp_path, None)
    assert not (tmp_path / STOPPED).exists()


def gather_with(monkeypatch: pytest.MonkeyPatch, theirs: Any) -> None:
    """Another process, the first, that gives `theirs` to whatever is gathered."""
    monkeypatch.setattr(World, "gather", lambda _, mine: [theirs, mine])
    monkeypatch.setattr(worker, "fingerprint", lambda _: "mine")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")


@pytest.mark.parametrize(
    ("theirs", "says"),
    [
        ((None, "mine", 2, True), "different numbers of processes"),
        ((None, "other", 1, True), "would not train the same"),
        (((Problem("too small a memory"),), "mine", 1, True), "too small a memory"),
    ],
)
def test_machines_that_differ_are_refused(
    theirs: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather_with(monkeypatch, theirs)
    with pytest.raises(UserError, match=says):
        worker.agree(World(1, 2, 2), tmp_path, tmp_path)


def test_all_keep_checkpoints_or_none_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gather_with(monkeypatch, (None, "mine", 1, True))
    assert worker.agree(World(1, 2, 2), tmp_path, tmp_path) == tmp_path
    assert worker.agree(World(1, 2, 2), tmp_path, None) is None
    gather_with(monkeypatch, (None, "mine", 1, False))
    assert worker.agree(World(1, 2, 2), tmp_path, tmp_path) is None
    hand_over(UserError("known"), tmp_path, 1)
    with pytest.raises(UserError, match="known"):
        worker.agree(World(1, 2, 2), tmp_path, tmp_path)


def test_the_checkpoint_that_is_furthest_on_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "00000002-00000007-ffff.pt").touch()
    for theirs, rank in (
        ("", 1),
        ("00000002-00000006", 1),
        ("00000002-00000007", 0),
        ("00000011-00000000", 0),
    ):
        gather_with(monkeypatch, theirs)
        assert newest(tmp_path, World(1, 2, 2)) == rank
    assert newest(None, World()) == 0


def test_the_first_process_of_a_machine_leads() -> None:
    assert [World(rank, 6, 2).is_local_main_process for rank in range(6)] == [
        True,
        False,
        False,
    ] * 2
    assert [World(rank, 3).is_local_main_process for rank in range(3)] == [True, False, False]


def test_the_number_of_machines_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PET_NNODES", "PET_RDZV_ENDPOINT", "PET_MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert num_nodes() == 1
    for asked in ("0", "two", "1:4", "-1"):
        monkeypatch.setenv("PET_NNODES", asked)
        with pytest.raises(UserError, match="PET_NNODES"):
            num_nodes()
    monkeypatch.setenv("PET_NNODES", "2:2")
    with pytest.raises(UserError, match="PET_RDZV_ENDPOINT"):
        num_nodes()
    monkeypatch.setenv("PET_RDZV_ENDPOINT", "host:29400")
    assert num_nodes() == 2
