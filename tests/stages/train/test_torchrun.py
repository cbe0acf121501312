"""A process of several: what it notes and tells, when it ends, and what all must agree on."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from stages.common.errors import Problem, UserError
from stages.train import worker
from stages.train.checkpoints.checkpoint import newest
from stages.train.launch import PROBLEMS, STOPPED, hand_over, launch, note_loss, raise_problems
from stages.training.device.distributed import World
from stages.training.device.environment import num_nodes
from stages.training.device.out_of_memory import ProcessOutOfMemoryError, read_oom_hints

TORCHRUN = {
    "RANK": "1",
    "LOCAL_WORLD_SIZE": "1",
    "GROUP_WORLD_SIZE": "2",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "3",
}


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
