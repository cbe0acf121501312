"""A dataset of one's own: the rows that it makes, and what it may not do."""

import random
import re
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from stages.common.errors import UserError
from stages.tensors.rows import open_rows
from stages.train.checkpoints.checkpoint import copied, load_state_dict, rank_state_dict, state_dict
from stages.training import recipe
from stages.training.data import zoo_datasets as datasets
from stages.training.data.batching import epoch_batches, local_batches, seed_of_epoch
from stages.training.device.distributed import World
from stages.training.device.rng import seed_generators
from stages.training.recipe import load_data
from stages.training.state import State
from tests.conftest import ROOT
from tests.support.training.datasets import (
    COLLATE,
    CPU,
    NOISY,
    PLAIN,
    PLAINEST,
    SCHEMA,
    Write,
    assert_same,
    load,
    run,
)
from tests.support.training.prepared import STATISTICS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("make", "after"), [(PLAIN, ""), (PLAINEST, ""), (PLAIN, COLLATE)])
def test_a_dataset_that_changes_nothing_trains_to_the_bits_of_the_arrays(
    write: Write, make: str, after: str
) -> None:
    write(make, after)
    arrays, _ = load_data(SCHEMA, STATISTICS, CPU)
    assert_same(run(load()), run(arrays))


def test_rows_of_a_dataset_have_the_weights_that_prepare_wrote(write: Write) -> None:
    write(PLAIN)
    plain = run(load())
    for split in ("train", "validation"):
        num_rows = len(open_rows(recipe.PREPARED / split))
        np.save(recipe.PREPARED / split / "weight.npy", np.arange(num_rows) % 4)
    rows = open_rows(recipe.PREPARED / "train")
    assert rows.weight is not None
    assert rows.weight[:5].tolist() == [0, 1, 2, 3, 0]
    assert "weight" not in rows.arrays
    weighted = run(load())
    arrays, _ = load_data(SCHEMA, STATISTICS, CPU)
    assert_same(weighted, run(arrays))
    assert weighted.history != plain.history


def test_neither_workers_nor_other_draws_change_a_bit(write: Write) -> None:
    write(NOISY)
    alone = run(load())
    random.seed(3)
    np.random.seed(4)  # noqa: NPY002
    assert_same(run(load()), alone)
    # What is drawn for rows is drawn from nobody else's generator: it is as it was seeded.
    after = random.getstate()
    seed_generators(5, 0)
    assert random.getstate() == after
    assert_same(run(load(num_workers=2)), alone)
    assert run(load(scale=0.0)).history != alone.history


@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_goes_on_after_any_step(write: Write, num_workers: int) -> None:
    write(NOISY)
    kept: list[Any] = []

    def keep(state: State) -> None:
        kept.append(copied(state_dict(state, [rank_state_dict(state)])))

    whole = run(load(num_workers), epochs=2, on_step_end=keep)
    # In an epoch, after its validation, in the next one.
    for number in (2, 6, 9) if num_workers == 0 else (2,):
        data = load(num_workers)
        data.train.take(slice(0, 1))
        made = data.train.dataset.inner.made  # type: ignore[attr-defined]
        made.clear()
        rest = run(data, epochs=2, load_state=partial(load_state_dict, kept[number], World()))
        assert_same(rest, whole)
        if num_workers == 0 and number == 2:
            # No row of a step behind it is made, but the sample that a training looks at.
            done = torch.cat(epoch_batches(45, 8, 5, 1)[:3])
            assert made[0] == 0
            assert set(made[1 : 1 + 45 - 24]).isdisjoint(done.tolist())
            assert len(made) == 1 + (45 - 24) + 45


def test_a_row_is_made_of_the_seed_of_the_epoch_and_its_number_alone(write: Write) -> None:
    write(NOISY)
    source = load().train

    def made(epoch: int, world: World) -> dict[int, torch.Tensor]:
        found: dict[int, torch.Tensor] = {}
        order, seed = epoch_batches(45, 10, 5, epoch), seed_of_epoch(5, epoch)
        for share in local_batches(source, order, world, seed):
            rows = share.rows[share.local_rows].tolist()
            found |= dict(zip(rows, share.batch["numeric"], strict=True))
        return found

    alone = made(1, World())
    assert sorted(alone) == list(range(45))
    together = [made(1, World(rank, 3)) for rank in range(3)]
    assert sum(map(len, together)) == 45
    for row, values in (together[0] | together[1] | together[2]).items():
        assert torch.equal(values, alone[row])
    again = made(2, World())
    assert not any(torch.equal(again[row], values) for row, values in alone.items())
    # What is looked at is the same each time, and so is validation; several pieces of it.
    assert torch.equal(source.take(slice(0, 9))[0]["numeric"], source.take(slice(9))[0]["numeric"])
    judged = load(num_workers=2).validation
    features, target = judged.take(slice(0, 4096))
    written = np.load(recipe.PREPARED / "validation/numeric.npy")
    np.testing.assert_array_equal(features["numeric"].numpy(), written)
    assert torch.equal(target, judged.target)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("return features", "it is dict: expected (features by kind, target)"),
        ("return {'numeric': features['numeric']}, target", "numeric: expected image, numeric"),
        (
            "features['image'] = features['image'][:1]\nreturn features, target",
            "'image' is (1, 6, 6) float32: expected (2, 6, 6) float32",
        ),
        (
            "features['numeric'] = self.rows.arrays['numeric'][row].astype(float)\n"
            "return features, target",
            "'numeric' is (5) float64: expected (5) float32",
        ),
        ("return features, float(target)", "'target' is () float32: expected () int64"),
        ("return features, [target]", "'target' is (1) int64: expected () int64"),
        ("1 / 0", "ZeroDivisionError: division by zero\n  edit     stages/zoo/datasets/mine.py:18"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_at_once(write: Write, make: str, says: str) -> None:
    write(make)
    with pytest.raises(UserError, match=re.escape(says)) as caught:
        run(load(num_workers=2))
    (problem,) = caught.value.problems
    assert problem.file == "stages/zoo/datasets/mine.py"
    assert problem.message.startswith("the row 'row 0': ")


def test_a_batch_of_its_own_collate_fn_is_looked_at(write: Write) -> None:
    write(PLAIN, COLLATE.replace("return features,", "return {'image': features['image']},"))
    with pytest.raises(UserError, match="collate_fn: its features are image: expected image, num"):
        run(load())
    write(PLAIN, COLLATE.replace("t for _, t in rows", "t for _, t in rows[:1]"))
    with pytest.raises(UserError, match=r"'target' is \(1\) int64: expected \(45\) int64"):
        load().train.take(slice(0, 64))


def test_the_one_in_the_docs_works(write: Write) -> None:
    write(PLAIN)
    part = (ROOT / "docs/training.md").read_text("utf-8").split("\n## A dataset of my own")[1]
    code = re.findall(r"```py\n(.*?)```", part, re.DOTALL)[0]
    path = datasets.DATASETS / "mine.py"
    plain = load()
    path.write_text(code, encoding="utf-8")
    exec(compile(code, path, "exec"), vars(sys.modules["stages.zoo.datasets.mine"]))
    noisy = load(num_workers=2, deviation=0.2)
    rows = slice(0, 45)
    expected, _ = plain.train.take(rows)
    features, target = noisy.train.take(rows)
    shifts = features["numeric"] - expected["numeric"]
    assert 0.1 < shifts[:, 0].std() < 0.3
    torch.testing.assert_close(shifts, shifts[:, :1].expand(45, 5))
    assert torch.equal(features["image"], expected["image"])
    assert torch.equal(target, noisy.train.target)


def test_a_dataset_of_another_length_is_refused(write: Write) -> None:
    write(PLAIN, "Dataset.__len__ = lambda self: 9\n")
    with pytest.raises(UserError, match="'mine' has 9 rows of a split of 45"):
        load()


def test_a_dataset_that_cannot_be_made_is_told(write: Write) -> None:
    write(PLAIN, "def Dataset(arguments, rows, *, train): raise ValueError('no weather')\n")
    with pytest.raises(UserError, match="the dataset 'mine' can't be made: ValueError: no weather"):
        load()


def test_where_processes_are_no_copies_rows_are_opened_anew(write: Write) -> None:
    import pickle

    write(PLAIN)
    rows = open_rows(recipe.PREPARED / "train")
    packed = pickle.dumps(rows)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).arrays["image"], rows.arrays["image"])
