"""A training that is killed goes on from its checkpoint and ends with the same bytes."""

import fcntl
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from stages.common.errors import UserError
from stages.model.dropout import Dropout
from stages.train.checkpoints.checkpoint import (
    CHECKPOINTS,
    checkpoint_key,
    copied,
    load_checkpoint,
    load_state_dict,
    lock_checkpoints,
    rank_state_dict,
    state_dict,
    write_checkpoint,
)
from stages.train.checkpoints.checkpointer import PREEMPTED, Checkpointer
from stages.train.checkpoints.signals import stop_signals
from stages.training.device.distributed import World
from stages.training.device.rng import put_generators, read_generators, seed_generators
from stages.training.loop import train
from stages.training.params import TrainParams
from stages.training.state import Result, State
from tests.conftest import Project, project_environment
from tests.support import killed
from tests.support.samples import (
    classification,
    mixed_table,
    run_stages,
    set_params,
    small_project,
    train_params,
    training,
)

# So small a step has one thread in the stage, too.
pytestmark = pytest.mark.usefixtures("one_thread")

DATA = classification()
RECIPES = {
    "plateau": {
        "optimizer": {"name": "AdamW", "lr": 0.05},
        "schedule": {"name": "ReduceLROnPlateau", "patience": 1},
        "early_stopping": {"metric": "accuracy", "patience": 3},
    },
    "one cycle": {
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        "schedule": {"name": "OneCycleLR", "max_lr": 0.2},
        "clip_norm": 0.5,
    },
    "cosine": {
        "optimizer": {"name": "Adam", "lr": 0.02},
        "schedule": {"name": "CosineAnnealingLR"},
        "ema": 0.9,
        "micro_batch_size": 6,
    },
    "cycles": {
        "optimizer": {"name": "Adam", "lr": 0.02},
        "schedule": {"name": "CyclicLR", "base_lr": 0.001, "step_size_up": 3},
    },
    "line search": {
        "optimizer": {"name": "LBFGS", "lr": 0.5, "max_iter": 3, "line_search_fn": "strong_wolfe"},
        "schedule": {"name": "ExponentialLR", "gamma": 0.9},
        "ema": 0.9,
        "micro_batch_size": 6,
    },
    "half precision": {
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        "schedule": {"name": "warmup_cosine"},
        "precision": "fp16",
    },
}


class Drops(nn.Module):
    """Dropout of the zoo, and torch's own, which draws from its global generator.

    And noise from those of Python and NumPy.
    """

    def __init__(self) -> None:
        super().__init__()
        first, last = nn.Linear(4, 16), nn.Linear(16, 3)
        self.layers = nn.Sequential(first, nn.ReLU(), Dropout(0.3), nn.Dropout(0.2), last)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        noise = 0.0
        if self.training:
            # Of an odd number of them each generator keeps one for the next time.
            noise = random.gauss(0, 0.1) + float(np.random.normal(0, 0.1))  # noqa: NPY002
        scores: torch.Tensor = self.layers(batch["numeric"] + noise)
        return scores


def run(params: TrainParams, **hooks: Any) -> Result:
    torch.manual_seed(3)
    return train(Drops(), DATA, params, 7, World(), lambda *_: None, **hooks)


def saver(folder: Path, told: Callable[[], int] = lambda: 0, seconds: float = 0) -> Checkpointer:
    return Checkpointer(folder, World(), told, seconds_between=seconds)


@pytest.mark.parametrize("recipe", RECIPES)
def test_going_on_after_any_step_gives_the_same_bits(recipe: str, tmp_path: Path) -> None:
    params = train_params(epochs=8, **RECIPES[recipe])
    kept: list[Any] = []
    save = saver(tmp_path)

    def keep(state: State) -> None:
        save(state)
        save.finish()
        kept.append(load_checkpoint(tmp_path))

    whole = run(params, on_step_end=keep)
    steps_and_end = 5
    assert len(kept) == steps_and_end * len(whole.history)
    assert len(whole.history) > 3
    # The first step, in an epoch, before its validation, after it, and the last of all.
    for number in (0, 6, 13, 14, -1):
        rest = run(params, load_state=partial(load_state_dict, kept[number], World()))
        assert rest.history == whole.history
        assert rest.best_epoch == whole.best_epoch
        for name, weight in whole.weights.items():
            assert torch.equal(rest.weights[name], weight)


def test_what_is_written_is_the_state_of_its_step(tmp_path: Path) -> None:
    # The disk is slower than the steps that follow.
    params, save, packed = train_params(epochs=2, **RECIPES["cosine"]), saver(tmp_path), []

    def keep(state: State) -> None:
        if len(packed) == 2:
            save(state)
            save.seconds_between = math.inf
        packed.append(copied(state_dict(state, [rank_state_dict(state)])))

    run(params, on_step_end=keep)
    save.finish()
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    for name, weight in packed[2]["model"].items():
        assert torch.equal(saved["model"][name], weight)
        assert not torch.equal(packed[-1]["model"][name], weight)


def test_a_damaged_checkpoint_is_said_and_the_one_before_it_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = saver(tmp_path)
    run(train_params(epochs=5), on_step_end=save)
    save.finish()
    first, second = sorted(tmp_path.iterdir())
    assert first.name.startswith("00000004-00000004-")
    assert second.name.startswith("00000005-00000000-")
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    assert len(saved["history"]) == 4
    said = capsys.readouterr().out
    assert "can't be read (its checksum is another)" in said
    assert "after epoch 4 and 4 steps" in said


def test_a_full_disk_is_said_and_ends_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = saver(tmp_path / "gone")
    whole = run(train_params(epochs=3), on_step_end=save)
    save.finish()
    assert len(whole.history) == 3
    assert "no checkpoint could be written: No such file or directory" in capsys.readouterr().out


def test_what_is_half_written_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stages.train.checkpoints.checkpoint.torch.save", full)
    save = saver(tmp_path)
    assert len(run(train_params(epochs=2), on_step_end=save).history) == 2
    save.finish()
    assert "no checkpoint could be written: No space left on device" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_has_left_half_written_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "00000000-00000001.writing"
    left.write_bytes(b"half")
    save = saver(tmp_path)
    run(train_params(epochs=2), on_step_end=save)
    save.finish()
    assert not left.exists()
    assert list(tmp_path.glob("*.pt"))


def take_long(*numbers: int) -> None:
    """A step in which signals come."""
    for number in numbers:
        os.kill(os.getpid(), number)
    time.sleep(5)


def train_until_told(folder: Path, told: Callable[[], int], number: int) -> None:
    """A training to which a signal comes in its eighth step: the third one of the second epoch."""
    steps, save = iter(range(100)), saver(folder, told, seconds=math.inf)

    def tell(state: State) -> None:
        if next(steps) == 7:
            os.kill(os.getpid(), number)
        save(state)

    run(train_params(epochs=4, **RECIPES["one cycle"]), on_step_end=tell)


def test_told_to_stop_it_keeps_the_step_and_ends(tmp_path: Path) -> None:
    params = train_params(epochs=4, **RECIPES["one cycle"])
    whole = run(params)
    with stop_signals() as told, pytest.raises(SystemExit) as ended:
        train_until_told(tmp_path, told, signal.SIGTERM)
    assert ended.value.code == PREEMPTED
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    assert saved["ranks"][0]["sums"]["num_steps"] == 3
    rest = run(params, load_state=partial(load_state_dict, saved, World()))
    assert rest.history == whole.history


def test_a_checkpoint_is_written_whole_however_long_it_takes_once_a_step_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_slowly(*given: Any) -> None:
        time.sleep(0.8)
        write_checkpoint(*given)

    def give_up(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("stages.train.checkpoints.checkpointer.write_checkpoint", write_slowly)
    monkeypatch.setattr("stages.train.checkpoints.signals.STOP_SECONDS", 0.4)
    before = signal.signal(signal.SIGALRM, give_up)
    try:
        with stop_signals() as told, pytest.raises(SystemExit) as ended:
            train_until_told(tmp_path, told, signal.SIGTERM)
        assert ended.value.code == PREEMPTED
        assert load_checkpoint(tmp_path) is not None
        # A step that does not end is not waited for.
        with pytest.raises(TimeoutError), stop_signals():
            take_long(signal.SIGTERM)
        # A Ctrl-C ends as it does without.
        with pytest.raises(KeyboardInterrupt), stop_signals():
            take_long(signal.SIGINT)
        assert signal.getsignal(signal.SIGALRM) is give_up
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_waits_for_the_step_and_a_second_one_does_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), stop_signals() as told:
        train_until_told(tmp_path, told, signal.SIGINT)
    saved = load_checkpoint(tmp_path)
    assert saved is not None
    assert saved["ranks"][0]["sums"]["num_steps"] == 3
    assert "Ctrl-C again" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt), stop_signals():
        take_long(signal.SIGINT, signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_after_the_last_step_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt), stop_signals():
        os.kill(os.getpid(), signal.SIGINT)
    # Where a shell or the stage has it ignored, it stays so.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_signals() as told:
            os.kill(os.getpid(), signal.SIGINT)
            assert told() == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_generator_of_the_device_itself_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    second, drawn = torch.device("cuda:1"), torch.arange(4, dtype=torch.uint8)
    put: list[tuple[torch.Tensor, torch.device]] = []
    monkeypatch.setattr("torch.cuda.get_rng_state", {second: drawn}.__getitem__)
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda *given: put.append(given))
    put_generators(read_generators(second), second)
    assert put == [(drawn, second)]


def test_processes_draw_unlike_each_other_and_the_first_as_one_alone() -> None:
    def drawn(seed: int, rank: int) -> list[float]:
        seed_generators(seed, rank)
        return [random.random(), float(np.random.rand()), torch.rand(()).item()]  # noqa: NPY002

    found = [drawn(seed, rank) for seed in (3, 4) for rank in range(3)]
    assert found == [drawn(seed, rank) for seed in (3, 4) for rank in range(3)]
    assert len({number for numbers in found for number in numbers}) == 18
    torch.manual_seed(3)
    assert found[0][2] == torch.rand(()).item()


def test_checkpoints_are_held_by_one_run_and_gone_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with lock_checkpoints("key") as mine, lock_checkpoints("key") as other:
        assert mine is not None
        assert other is None
        assert "another run trains the very same" in capsys.readouterr().out
    assert list(mine.parent.iterdir()) == []
    with pytest.raises(RuntimeError), lock_checkpoints("key") as mine:
        raise RuntimeError
    assert mine.exists()


def test_a_lock_that_is_gone_when_it_is_held_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lock, flock, times = CHECKPOINTS / "key.lock", fcntl.flock, iter(range(99))

    def meanwhile(*given: Any) -> None:
        if next(times) == 0:
            # The run before it ends just now.
            lock.unlink()
        flock(*given)

    monkeypatch.setattr("stages.locks.fcntl.flock", meanwhile)
    with lock_checkpoints("key") as mine, lock_checkpoints("key") as other:
        assert mine is not None
        assert other is None
        assert lock.exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project with dropout, trained without interruption."""
    changes = {
        "train.epochs": 150,
        "train.early_stopping": {"metric": "loss", "patience": 120},
        "train.schedule": {"name": "warmup_cosine"},
        "train.augment": {"flip": 0, "shift": 0, "noise": 0.1},
        "build.model": {"name": "mlp", "width": 8, "dropout": 0.2},
        "train.ema": 0.99,
        "train.micro_batch_size": 50,
    }
    project = small_project(tmp_path_factory.mktemp("trained"), mixed_table(400), changes)
    run_stages(project, "prepare", "build", "tune")
    project.run("python", "-m", "stages.train")
    return project


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


def test_a_killed_training_ends_with_the_same_bytes(trained: Project) -> None:
    kill_and_go_on(trained, 1, seed=1)


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


@pytest.fixture(scope="module")
def divided(trained: Project) -> Iterator[Project]:
    """The same one, trained by two processes that divide the weights."""
    set_params(trained, {"train.parallel": "fsdp"})
    trained.run("python", "-m", "stages.train", env={"PET_NPROC_PER_NODE": "2"})
    yield trained
    set_params(trained, {"train.parallel": "ddp"})
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


@pytest.mark.soak
def test_told_to_stop_two_processes_that_divide_the_weights_can_go_on(divided: Project) -> None:
    stop_and_go_on(divided, "2")


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.soak)])
def test_told_to_stop_it_says_that_it_can_go_on(trained: Project, processes: str) -> None:
    stop_and_go_on(trained, processes)


def stop_and_go_on(trained: Project, processes: str) -> None:
    """Tell a training to stop, which leaves a checkpoint; the next one goes on from there."""
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


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.soak)])
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


@pytest.mark.parametrize("asked", ["soon", "-1", "nan"])
def test_the_seconds_between_checkpoints_are_a_number(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPRISE_CHECKPOINT_SECONDS", asked)
    with pytest.raises(UserError, match=f"'{asked}': it must be a number of seconds"):
        Checkpointer(None, World(), lambda: 0)
    monkeypatch.setenv("REPRISE_CHECKPOINT_SECONDS", "0.5")
    assert Checkpointer(None, World(), lambda: 0).seconds_between == 0.5


def test_another_recipe_never_goes_on_from_this_one(
    trained: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.path)
    keys = {checkpoint_key(1), checkpoint_key(2)}
    text = (trained.path / "params.yaml").read_text(encoding="utf-8")
    versions = (trained.path / "stages/versions.yaml").read_text(encoding="utf-8")
    try:
        (trained.path / "params.yaml").write_text(text.replace("150", "151"), encoding="utf-8")
        keys.add(checkpoint_key(1))
        (trained.path / "params.yaml").write_text(text, encoding="utf-8")
        moved = versions.replace("torch: 2", "torch: 3")
        (trained.path / "stages/versions.yaml").write_text(moved, encoding="utf-8")
        keys.add(checkpoint_key(1))
    finally:
        (trained.path / "params.yaml").write_text(text, encoding="utf-8")
        (trained.path / "stages/versions.yaml").write_text(versions, encoding="utf-8")
    monkeypatch.setenv("REPRISE_THREADS", "17")
    assert len(keys | {checkpoint_key(1)}) == 5
