"""Each cause of the table, provoked for real where that can be, is recognised by what is noted.

What takes a GPU, NCCL or another machine is recognised by its recorded messages: those that the
page shows.
"""

import contextlib
import io
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from dvc.lock import LockError
from dvc.repo import lock_repo

from pipeline.common.dvc_repo import locked, open_repo
from pipeline.common.lockfile import DVC_LOCK
from pipeline.doctor.cause import CHAPTERS, Cause, read_chapters, recognise
from stages.common.errors import UserError
from stages.locks import hold
from stages.train.checkpoints.checkpoint import read_checkpoint
from tests.conftest import Project
from tests.support.broken import DATASET, MODEL, fail, own_code
from tests.support.remotes import make_tiny
from tests.support.samples import mixed_table, ready_to_train, set_params

CAUSES = [cause for chapter in read_chapters() for cause in chapter.causes]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project that train can begin with."""
    changes = {"train.batch_size": 64}
    return ready_to_train(tmp_path_factory.mktemp("built") / "project", changes, mixed_table(80))


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A copy of it to break."""
    shutil.copytree(built.path, tmp_path / "project")
    return Project(tmp_path / "project")


def names(text: str) -> list[str]:
    return [cause.name for cause in recognise(text)]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.name)
def test_the_lines_that_the_page_shows_are_recognised_and_no_others(cause: Cause) -> None:
    for sign in cause.signs if cause.patterns else ():
        assert names(sign) == [cause.name], sign


def test_the_table_is_whole() -> None:
    assert next(chapter.title for chapter in read_chapters()) == "The first step already fails"
    assert len(read_chapters()) == len(CHAPTERS)
    assert len({cause.name for cause in CAUSES}) == len(CAUSES) >= 28
    assert [cause.name for cause in CAUSES if cause.recorded] == [
        "tensors on different devices",
        "NCCL fails",
    ]
    assert all(cause.signs and cause.means and cause.remedies for cause in CAUSES)


def test_what_was_said_last_comes_first() -> None:
    log = "CUDA out of memory\nresumes\nOSError: [Errno 28] No space left on device\n"
    assert names(log) == ["the disk is full", "the memory is full"]
    assert names("epoch 3: loss 0.2\nmemory of the column: fine") == []


@contextlib.contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    """Have the system refuse this process what is more than that."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


# A model's parts, and its output.
MODELS = {
    "shapes that don't fit": (
        ("self.last = nn.Linear(width + 3, num_outputs)", "return self.last(x)"),
        ("self.last = nn.Linear(width, num_outputs)", "return self.last(x).reshape(7, -1)"),
    ),
    "numbers of the wrong type": (
        ("self.last = nn.Linear(width, num_outputs)", "return self.last(x.double())"),
    ),
    "a label out of range": (
        ("self.e = nn.Embedding(2, num_outputs)", "return self.e((x[:, 0] * 0 + 5).long())"),
    ),
    "the memory is full": (
        (
            "self.last = nn.Linear(width, num_outputs)",
            "return self.last(x) + torch.ones(len(x), 2**45).sum()",
        ),
    ),
    "weights of another model": (
        (
            "self.last = nn.Linear(width, num_outputs);"
            "self.load_state_dict(nn.Linear(width, 7).state_dict())",
            "return self.last(x)",
        ),
    ),
}


@pytest.mark.parametrize(
    ("cause", "made", "returned"),
    [(cause, *parts) for cause, models in MODELS.items() for parts in models],
)
def test_a_model_that_breaks(
    project: Project, cause: str, made: str, returned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_code(project, "models", "own", MODEL.format(made=made, returned=returned), monkeypatch)
    set_params(project, {"build.model": {"name": "own"}})
    attempt = fail(project, "build")
    assert attempt.state == "failed"
    assert names(attempt.text)[0] == cause, attempt.text


DATASETS = {
    "a label out of range": "return features, target + 2 * (row == 3)",
    "a worker of the dataset has died": (
        "torch.utils.data.get_worker_info() and os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return features, target"
    ),
    "the loss is not finite": (
        "features['numeric'] += float('nan') * (row == 3)\n        return features, target"
    ),
    "numbers of the wrong type": "return features, target.to(torch.uint16)",
    "too many open files": """kept = []
        try:
            while True:
                kept.append(os.open(os.devnull, os.O_RDONLY))
        finally:
            [os.close(each) for each in kept]""",
}


# torch looks after its workers every five seconds.
SLOW = "a worker of the dataset has died"


@pytest.mark.parametrize(
    "cause", [pytest.param(c, marks=[pytest.mark.soak] if c == SLOW else []) for c in DATASETS]
)
def test_a_dataset_that_breaks(
    project: Project, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = DATASET.format(returned=DATASETS[cause])
    own_code(project, "datasets", "own", code, monkeypatch)
    dataset = {"name": "own", "num_workers": int("worker" in cause)}
    set_params(project, {"train.dataset": dataset})
    with limited(resource.RLIMIT_NOFILE, 512):
        attempt = fail(project, "train")
    assert names(attempt.text)[0] == cause, attempt.text


def test_a_rate_that_is_far_too_high(project: Project) -> None:
    set_params(project, {"train.optimizer.lr": 1e30, "train.epochs": 9})
    attempt = fail(project, "train")
    assert names(attempt.text) == ["the loss is not finite"], attempt.text
    assert attempt.facts["keys"] == ["train.optimizer.lr"]


def test_a_value_far_from_all_others(project: Project) -> None:
    path = project.path / "data/prepare/validation/numeric.npy"
    numbers = np.load(path)
    numbers[0, 0] = np.inf
    np.save(path, numbers)
    attempt = fail(project, "train")
    assert names(attempt.text) == ["a value far from all others"], attempt.text


def test_a_damaged_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "00000004-00000000-0123.pt"
    damaged.write_bytes(b"half")
    assert read_checkpoint(damaged) is None
    assert names(capsys.readouterr().out) == ["a damaged checkpoint"]
    with pytest.raises(RuntimeError) as caught:
        torch.load(io.BytesIO(b"PK\x03\x04 half"))
    assert names(str(caught.value)) == ["a damaged checkpoint"]


def test_a_lock_of_dvc_that_another_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_tiny(tmp_path / "work", origin=False, store=False).path)
    DVC_LOCK.parent.mkdir(exist_ok=True)
    held = hold(DVC_LOCK)
    assert held is not None
    with held, open_repo() as repo:
        with pytest.raises(LockError) as caught, lock_repo(repo):
            pass
        with pytest.raises(UserError) as ours, locked(repo):
            pass
    for error in (caught, ours):
        assert names(str(error.value)) == ["DVC finds its lock taken"]


def test_a_mistake_in_the_parameters(project: Project) -> None:
    set_params(project, {"train.optimizer.lrr": 1e-3})
    attempt = fail(project, "train")
    assert names(attempt.text) == ["a mistake in params.yaml or in the data"], attempt.text
    assert "params.yaml:" in attempt.text


def test_a_mistake_in_code_of_ones_own(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = MODEL.format(made="pass", returned="return scores")
    own_code(project, "models", "own", broken, monkeypatch)
    set_params(project, {"build.model": {"name": "own"}})
    attempt = fail(project, "build")
    assert names(attempt.text) == ["a mistake in code of your own"], attempt.text
    assert "stages/zoo/models/own.py:" in attempt.text


def share_tensor() -> None:
    with limited(resource.RLIMIT_FSIZE, 4096):
        torch.zeros(100_000).share_memory_()


def fill_disk() -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x" * 10**6)


def wait_for_nobody() -> None:
    with socket.socket() as held:
        # Bound, and nobody listens there.
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        dist.TCPStore("127.0.0.1", port, 2, False, timedelta(seconds=0.3))


def listen_twice() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        dist.TCPStore("127.0.0.1", taken.getsockname()[1], 1, True)


REFUSED: dict[str, Callable[[], None]] = {
    "shared memory is full": share_tensor,
    "the disk is full": fill_disk,
    "the processes can't meet": wait_for_nobody,
    "a port is taken": listen_twice,
}


@pytest.mark.parametrize("cause", REFUSED)
def test_what_the_system_refuses(cause: str) -> None:
    with pytest.raises((OSError, RuntimeError)) as caught:
        REFUSED[cause]()
    said = f"{type(caught.value).__name__}: {caught.value}"
    assert names(said)[0] == cause, said


def test_a_library_that_is_not_there() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import torch"], capture_output=True, text=True
    )
    assert names(done.stderr) == ["another version of a library"]


def test_a_signal_in_the_words_of_a_shell_and_of_dvc() -> None:
    done = subprocess.run(["bash", "-c", "kill -9 $$"], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    # As DVC says it of a stage.
    said = f"failed to run: python -m stages.train, exited with {done.returncode}"
    assert names(said) == ["the process was killed"]
    assert names("process 1 has lost the others: Connection closed by peer") == [
        "a process was lost"
    ]
