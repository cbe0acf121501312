"""A dataset of one's own: the rows that it makes, in workers or not, and what it may not do."""

import importlib.util
import os
import random
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from pipeline.params.check import find_problems
from stages.common.config import ClassSpec
from stages.common.errors import UserError
from stages.common.files import write_json
from stages.common.yamlfile import read_yaml
from stages.features.rows import open_rows
from stages.features.schema import Schema, Target, write_record
from stages.train.checkpoints.checkpoint import copied, load_state_dict, rank_state_dict, state_dict
from stages.train.checkpoints.checkpointer import PREEMPTED
from stages.training import recipe
from stages.training.data import zoo_datasets as datasets
from stages.training.data.batching import epoch_batches, local_batches, seed_of_epoch
from stages.training.device.distributed import World
from stages.training.device.rng import seed_generators
from stages.training.loop import train
from stages.training.optim.preflight import check_names
from stages.training.recipe import load_data
from stages.training.state import Data, Result, State
from stages.tune import trial
from stages.zoo.datasets import random_erasing
from tests.conftest import ROOT, Project
from tests.stages.training.data.test_memmap import SPEC, STATISTICS, write_split
from tests.support.samples import (
    mixed_table,
    run_stages,
    set_params,
    small_project,
    train_params,
    training,
)

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SCHEMA = Schema(key=None, features=[], target=Target(name="y", task="classification"))

# What follows the class is the body of `make`.
MINE = """
import os, random
import numpy as np
import torch
from stages.common.config import Config

class Arguments(Config):
    scale: float = 1.0

class Dataset(torch.utils.data.Dataset):
    def __init__(self, arguments, rows, *, train):
        self.scale, self.rows, self.train = arguments.scale, rows, train
        self.made = []

    def __getitem__(self, row):
        self.made.append(row)
        features, target = self.rows.take(row)
"""
PLAIN = "return features, target"
NOISY = """
if self.train:
    drawn = random.gauss(0, 1) + np.random.normal(size=5) + torch.randn(5).double().numpy()
    features["numeric"] += self.scale * torch.from_numpy(drawn).float()
return features, target
"""
# Rows as people may give them too: arrays and plain numbers.
PLAINEST = """
features["numeric"] = self.rows.arrays["numeric"][row]
return features, int(target)
"""
COLLATE = """
def collate_fn(rows):
    features = {k: torch.stack([f[k] for f, _ in rows]) for k in rows[0][0]}
    return features, torch.stack([t for _, t in rows])
"""
Write = Callable[..., None]


class Drops(nn.Module):
    """Draws from torch's global generator in training, as a model of one's own may."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(77, 8), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        flat = torch.cat([batch["numeric"], batch["image"].flatten(1)], dim=1)
        scores: torch.Tensor = self.layers(flat)
        return scores


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the dataset `mine`, given the end of its `__getitem__`, and loads it by name."""
    zoo = tmp_path / "stages/zoo/datasets"
    zoo.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "DATASETS", zoo)
    prepared = tmp_path / "prepare"
    prepared.mkdir()
    write_split(prepared / "train", 45)
    write_split(prepared / "validation", 70)
    write_record(prepared / "schema.json", SCHEMA)
    write_record(prepared / "statistics.json", STATISTICS)
    monkeypatch.setattr(recipe, "PREPARED", prepared)

    def written(make: str, after: str = "") -> None:
        body = "\n".join(f"        {line}" for line in make.strip().splitlines())
        (zoo / "mine.py").write_text(f"{MINE}{body}\n{after}", encoding="utf-8")
        spec = importlib.util.spec_from_file_location("mine", zoo / "mine.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "stages.zoo.datasets.mine", module)
        spec.loader.exec_module(module)

    return written


def load(num_workers: int = 0, **arguments: Any) -> Data:
    named = ClassSpec.model_validate({"name": "mine", "num_workers": num_workers, **arguments})
    data, said = load_data(SCHEMA, STATISTICS, CPU, dataset=named)
    assert said == ("data by mine" if num_workers == 0 else f"data by mine, {num_workers} workers")
    return data


def run(data: Data, epochs: int = 3, **hooks: Any) -> Result:
    params = train_params(epochs=epochs, batch_size=8, optimizer={"name": "AdamW", "lr": 0.01})
    torch.manual_seed(1)
    return train(Drops(), data, params, 5, World(), lambda *_: None, **hooks)


def assert_same(ours: Result, theirs: Result) -> None:
    assert ours.history == theirs.history
    for name, weight in theirs.weights.items():
        assert torch.equal(ours.weights[name], weight), name


@pytest.mark.parametrize(("make", "after"), [(PLAIN, ""), (PLAINEST, ""), (PLAIN, COLLATE)])
def test_a_dataset_that_changes_nothing_trains_to_the_bits_of_the_arrays(
    write: Write, make: str, after: str
) -> None:
    write(make, after)
    arrays, _ = load_data(SCHEMA, STATISTICS, CPU)
    assert_same(run(load()), run(arrays))


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


def test_a_batch_of_its_own_collate_fn_is_looked_at(write: Write) -> None:
    write(PLAIN, COLLATE.replace("return features,", "return {'image': features['image']},"))
    with pytest.raises(UserError, match="collate_fn: its features are image: expected image, num"):
        run(load())
    write(PLAIN, COLLATE.replace("t for _, t in rows", "t for _, t in rows[:1]"))
    with pytest.raises(UserError, match=r"'target' is \(1\) int64: expected \(45\) int64"):
        load().train.take(slice(0, 64))


def test_the_one_in_the_docs_works(write: Write) -> None:
    write(PLAIN)
    (code,) = re.findall(
        r"```py\n(.*?)```", (ROOT / "docs/training.md").read_text("utf-8"), re.DOTALL
    )
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


def test_all_wrong_names_and_arguments_are_told_before_any_data_is_loaded(write: Write) -> None:
    write(PLAIN)
    wrong = {"name": "mien"}, {"name": "mine", "scael": 2.0}, {"name": "mine", "num_workers": -1}
    said = []
    for dataset in wrong:
        params = train_params(dataset=dataset, optimizer={"name": "SDG", "lr": 0.1})
        with pytest.raises(UserError) as caught:
            check_names(params, "classification")
        optimizer, problem = caught.value.problems
        assert optimizer.key == "train.optimizer.name"
        said.append((problem.key, problem.suggestion))
    assert said == [
        ("train.dataset.name", "mine"),
        ("train.dataset.scael", "scale"),
        ("train.dataset.num_workers", None),
    ]


def test_each_trial_has_the_dataset_with_its_own_arguments(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(NOISY)
    write_json(tmp_path / "model.json", SPEC.model_copy(update={"num_outputs": 7}).model_dump())
    monkeypatch.setattr(recipe, "BUILT", tmp_path)
    monkeypatch.setattr(trial, "PREPARED", recipe.PREPARED)

    def tried(dataset: dict[str, Any] | None, **overrides: float) -> float:
        start = trial.Start(train_params(dataset=dataset).model_dump(), SPEC, SCHEMA, seed=3)
        objective, _ = trial.make_objective(start)
        paths = {f"train.dataset.{name}": value for name, value in overrides.items()}
        return objective(paths, lambda *_: None)

    plain = tried(None)
    mine: dict[str, Any] = {"name": "mine", "scale": 0.5}
    assert tried(mine) != plain
    assert tried(mine, scale=0.0) == plain
    assert tried(mine, scale=0.7) == tried({"name": "mine", "scale": 0.7})


def test_the_check_of_the_whole_file_knows_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("pipeline.params.check.check_paths", lambda *_, **__: [])
    tree = read_yaml(Path("params.yaml"))

    def check(dataset: object) -> list[str]:
        tree["train"]["dataset"] = dataset
        return [str(p.key) for p in find_problems(tree) if str(p.key).startswith("train.")]

    assert check(None) == check({"name": "random_erasing", "num_workers": 2}) == []
    assert check({"name": "erasing"}) == ["train.dataset.name"]
    assert check({"name": "random_erasing", "probability": 2, "num_workers": 0.5}) == [
        "train.dataset.probability",
        "train.dataset.num_workers",
    ]
    assert check("random_erasing") == ["train.dataset"]


def test_random_erasing_overwrites_a_box_as_the_paper_draws_it(write: Write) -> None:
    write(PLAIN)
    rows = open_rows(recipe.PREPARED / "train")
    arguments = random_erasing.Arguments(probability=0.6, largest=0.3)
    learned = random_erasing.Dataset(arguments, rows, train=True)
    random.seed(0)
    torch.manual_seed(0)
    num_erased = 0
    for row in range(45):
        (features, target), (whole, code) = learned[row], rows.take(row)
        assert torch.equal(target, code)
        assert torch.equal(features["numeric"], whole["numeric"])
        changed = features["image"] != whole["image"]
        if not changed.any():
            continue
        num_erased += 1
        inside = changed.any(dim=0).nonzero()
        (top, left), (bottom, right) = inside.min(dim=0).values, inside.max(dim=0).values
        assert changed[:, top : bottom + 1, left : right + 1].all()
        area = int((bottom - top + 1) * (right - left + 1))
        # Of 36 pixels, sides rounded.
        assert 1 <= area <= 0.3 * 36 + 4
    assert 18 <= num_erased <= 36
    judged = random_erasing.Dataset(arguments, rows, train=False)
    assert torch.equal(judged[3][0]["image"], rows.take(3)[0]["image"])


def test_random_erasing_is_refused_without_images(tmp_path: Path) -> None:
    project = small_project(
        tmp_path / "project", mixed_table(), {"train.dataset": {"name": "random_erasing"}}
    )
    run_stages(project, "prepare", "build", "tune")
    with pytest.raises(UserError, match="random_erasing is for images") as caught:
        run_stages(project, "train")
    assert caught.value.problems[0].key == "train.dataset.name"


SLOW = """
import time
time.sleep(0.001)
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
