"""Checkpoints: what they hold, how they are written, read and held."""

import fcntl
import math
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.common.errors import UserError
from stages.train.checkpoints.checkpoint import (
    CHECKPOINTS,
    checkpoint_key,
    copied,
    load_checkpoint,
    load_state_dict,
    lock_checkpoints,
    rank_state_dict,
    state_dict,
)
from stages.train.checkpoints.checkpointer import Checkpointer
from stages.training.device.distributed import World
from stages.training.device.rng import put_generators, read_generators, seed_generators
from stages.training.state import State
from tests.conftest import Project
from tests.support.samples import train_params
from tests.support.training.resumed import RECIPES, run, saver

# So small a step has one thread in the stage, too.
pytestmark = pytest.mark.usefixtures("one_thread")


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
