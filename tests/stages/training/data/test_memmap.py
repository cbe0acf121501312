"""Data that stay on disk: the same bits as on the device."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.features.schema import load_arrays
from stages.model.model import make_model
from stages.train.calibrate import score
from stages.train.checkpoints.checkpoint import load_checkpoint, load_state_dict
from stages.train.checkpoints.checkpointer import Checkpointer
from stages.training import recipe
from stages.training.data import memmap as mapped
from stages.training.data.batching import epoch_batches, local_batches
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.recipe import load_data
from stages.training.state import Data, Result
from tests.conftest import Project
from tests.support.samples import mixed_table, run_stages, small_project, train_params
from tests.support.training.prepared import CPU, IMAGE, SCHEMA, SPEC, STATISTICS, write_split

pytestmark = pytest.mark.usefixtures("one_thread")
Load = Callable[[str], Data]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """The data that prepare has left, on the device or mapped; a gather is of few rows."""
    write_split(tmp_path / "train", 101)
    write_split(tmp_path / "validation", 37)
    monkeypatch.setattr(recipe, "PREPARED", tmp_path)
    monkeypatch.setattr(mapped, "GATHER_BYTES", 50 * (5 + 72) * 4)

    def loaded(place: str) -> Data:
        monkeypatch.setenv("REPRISE_DATA", place)
        data, said = load_data(SCHEMA, STATISTICS, CPU)
        assert said.endswith("(REPRISE_DATA)")
        assert isinstance(data.train, TensorSource) == (place == "device")
        return data

    return loaded


def run(data: Data, seed: int = 5, **hooks: Any) -> Result:
    params = train_params(
        epochs=3,
        batch_size=8,
        optimizer={"name": "AdamW", "lr": 0.01},
        augment={"flip": 0.5, "shift": 1, "noise": 0.1},
    )
    return train(make_model(SPEC, 1), data, params, seed, World(), lambda *_: None, **hooks)


def assert_same(ours: Result, theirs: Result) -> None:
    assert ours.history == theirs.history
    assert ours.best_epoch == theirs.best_epoch
    for name, weight in theirs.weights.items():
        assert torch.equal(ours.weights[name], weight), name


def test_the_device_has_the_rows_that_were_prepared(load: Load, tmp_path: Path) -> None:
    split = load("device").train
    assert isinstance(split, TensorSource)
    written = load_arrays(tmp_path / "train")
    for mean, channel in zip(IMAGE, (0, 1), strict=True):
        expected = (written["image"][:, channel].astype(np.float32) - np.float32(mean.mean)) / (
            np.float32(mean.deviation)
        )
        np.testing.assert_array_equal(split.batch["image"][:, channel].numpy(), expected)
    np.testing.assert_array_equal(split.batch["numeric"].numpy(), written["numeric"])
    np.testing.assert_array_equal(split.target.numpy(), written["target"])


def test_mapped_data_train_to_the_same_bits(load: Load) -> None:
    device, disk = load("device"), load("mapped")
    assert_same(run(disk), run(device))
    assert run(disk, seed=6).history != run(device).history
    for ours, theirs in zip(
        score(make_model(SPEC, 1), disk.validation),
        score(make_model(SPEC, 1), device.validation),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("size", [1, 3])
def test_each_of_several_processes_is_fed_the_same(load: Load, size: int) -> None:
    device, disk = load("device").train, load("mapped").train
    # The last batch has one row: two of three processes take it without a weight.
    order = epoch_batches(101, 10, 5, 1)[3:]
    for rank in range(size):
        world = World(rank, size)
        fed = [list(local_batches(source, order, world, 0)) for source in (disk, device)]
        assert len(fed[0]) == len(order)
        for ours, theirs in zip(*fed, strict=True):
            assert ours.local_rows == theirs.local_rows
            assert ours.loss_scale == theirs.loss_scale
            assert torch.equal(ours.target, theirs.target)
            for kind, tensor in theirs.batch.items():
                assert torch.equal(ours.batch[kind], tensor)
                assert ours.batch[kind].stride() == tensor.stride()
    rows = torch.tensor([7, 3, 3, 90])
    taken, target = disk.take(rows)
    assert torch.equal(taken["image"], device.take(rows)[0]["image"])
    assert torch.equal(target, device.target[rows])


def test_mapped_data_go_on_after_any_step(load: Load, tmp_path: Path) -> None:
    data, kept = load("mapped"), []
    save = Checkpointer(tmp_path / "kept", World(), lambda: False, seconds_between=0)
    assert save.folder is not None
    save.folder.mkdir()

    def keep(state: Any) -> None:
        save(state)
        save.finish()
        kept.append(load_checkpoint(save.folder))

    whole = run(data, on_step_end=keep)
    # In the middle of a gather, of an epoch, and at its end; on the device it goes on as well.
    for number, place in ((1, "mapped"), (20, "mapped"), (13, "mapped"), (18, "device")):
        load_state = partial(load_state_dict, copy.deepcopy(kept[number]), World())
        assert_same(run(load(place), load_state=load_state), whole)


def test_a_gather_is_of_several_steps_but_not_of_too_many_rows(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered: list[Any] = []
    take = np.take

    def note(array: Any, rows: Any, axis: int) -> Any:
        assert list(rows) == sorted(rows)
        gathered.append(len(rows))
        return take(array, rows, axis=axis)

    monkeypatch.setattr(np, "take", note)
    steps = list(epoch_batches(101, 8, 5, 1))
    assert len(list(load("mapped").train.feed(steps, 0))) == len(steps)
    # Fifty rows fit: six steps at most. Both kinds of tensors.
    assert gathered == [8, 8, 16, 16, 32, 32, 45, 45]


def test_the_next_gather_is_under_way_while_a_step_is_taken(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, done = load("mapped").train, []
    gather = mapped.Mapped._gather

    def note(self: Any, group: Any) -> Any:
        done.append(len(group))
        return gather(self, group)

    monkeypatch.setattr(mapped.Mapped, "_gather", note)
    fed = source.feed(list(epoch_batches(101, 8, 5, 1)), 0)
    next(fed)
    fed.close()
    # Closed, it has waited for the one under way and begun no other.
    assert done == [1, 2]


def test_what_the_disk_refuses_ends_the_training(load: Load) -> None:
    data = load("mapped")
    data.train.features["image"] = np.zeros((3, 2, 6, 6), np.uint8)  # type: ignore[attr-defined]
    with pytest.raises(IndexError):
        run(data)


def test_a_stage_says_where_the_data_are_and_writes_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = small_project(tmp_path / "project", mixed_table(), {"train.epochs": 2})
    run_stages(project, "prepare", "build", "tune", "train")
    said = capsys.readouterr().out.splitlines()
    assert (
        "data on cpu: 3 kB; threads: 1 (a step of 0.0M products is small); eager: to compile does "
        "not pay on cpu; fp32"
    ) in said
    expected = project.outputs()
    monkeypatch.setenv("REPRISE_DATA", "mapped")
    run_stages(project, "train")
    assert "data mapped: 3 kB (REPRISE_DATA); threads: 1 (" in capsys.readouterr().out
    assert project.outputs() == expected


@pytest.mark.soak
def test_two_processes_train_on_mapped_data_to_the_same_bytes(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project", mixed_table(), {"train.epochs": 2})
    run_stages(project, "prepare", "build", "tune")
    assert "data on cpu" in _train(project, PET_NPROC_PER_NODE="2")
    expected = project.outputs()
    assert "data mapped" in _train(project, PET_NPROC_PER_NODE="2", REPRISE_DATA="mapped")
    assert project.outputs() == expected


def _train(project: Project, **settings: str) -> str:
    return project.run("python", "-m", "stages.train", env=settings).stdout
