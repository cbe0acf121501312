"""`train.parallel: fsdp`: processes that divide the weights train what one process does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.common.config import ClassSpec
from stages.common.errors import UserError
from stages.features.schema import write_record
from stages.model.model import make_model
from stages.train.checkpoints.sharded_checkpoint import (
    _own_parts,
    drop_older,
    find_whole,
    has_whole,
    write_part,
)
from stages.training import recipe
from stages.training.compatibility import WHOLE, check_parallel
from stages.training.data.batching import epoch_batches
from stages.training.device import fsdp as sharded
from stages.training.device.compile import choose_compile
from stages.training.device.distributed import World
from stages.training.device.fsdp import find_blocks, shard_model, shards_weights
from stages.training.optim.preflight import check_names
from stages.training.optim.registry import allowed
from tests.support.samples import train_params
from tests.support.training.divided import RECIPE, SEED, Normed, fit_dataset
from tests.support.training.divided import main as train_divided
from tests.support.training.models import DENSE, SPECS, assert_same, figures, pixels, run
from tests.support.training.prepared import SCHEMA, STATISTICS, write_split
from tests.support.training.together import run_together

Told = tuple[list[dict[str, Any]], dict[str, Tensor]]


def divided(size: int, folder: Path) -> list[dict[str, Any]]:
    """What each of the processes of `tests/support/training/divided.py` has left."""
    write_rows(folder / "prepare")
    run_together(train_divided, [(rank, size, folder) for rank in range(size)])
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def write_rows(folder: Path) -> None:
    """What a dataset of one's own reads; not all processes have rows of the last batches."""
    folder.mkdir()
    write_split(folder / "train", 45)
    write_split(folder / "validation", 23)
    write_record(folder / "schema.json", SCHEMA)
    write_record(folder / "statistics.json", STATISTICS)


@pytest.fixture(
    scope="module", params=[pytest.param(2), pytest.param(3, marks=pytest.mark.soak)], name="told"
)
def _told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    return divided(request.param, tmp_path_factory.mktemp("divided"))


def test_dividing_the_weights_changes_rounding_alone(told: list[dict[str, Any]]) -> None:
    first, *others = told
    params = train_params(**RECIPE, parallel="fsdp")
    twice = params.model_copy(update={"objective": ClassSpec(name="consistency")})
    trained = [(*each, params) for each in DENSE.items()] + [("mlp", SPECS["mlp"], twice)]
    for (kind, spec, params), (history, weights) in zip(trained, first["zoo"], strict=True):
        # With nobody to divide them with it is the plain loop.
        alone = run(make_model(spec, seed=4).double(), pixels(kind), params, seed=SEED)
        for ours, theirs in zip(history, alone.history, strict=True):
            assert ours == pytest.approx(figures(theirs), rel=1e-10)
        assert_same(weights, alone.weights, tolerance=1e-10)
    for other in others:
        # The whole weights are put together in the first process alone.
        assert [history for history, _ in other["zoo"]] == [h for h, _ in first["zoo"]]
        assert [weights for _, weights in other["zoo"]] == [{}] * len(trained)


def test_all_processes_judge_the_norms_of_the_first(told: list[dict[str, Any]]) -> None:
    # Each has counted rows of its own. What is kept, and what goes on, has the first one's.
    first, *others = (process["counted"] for process in told)
    assert len(first) == 4
    for other in others:
        for ours, theirs in zip(first, other, strict=True):
            assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_a_step_that_is_not_applied_counts_nothing(told: list[dict[str, Any]]) -> None:
    for process in told:
        for ours, theirs in (process["skipped"][:2], process["skipped"][2:]):
            assert_same(ours, theirs, tolerance=0.0)


def test_a_row_of_one_process_is_told_by_all(told: list[dict[str, Any]]) -> None:
    row = int(epoch_batches(12, 12, SEED, 1)[0][len(told) - 1])
    for process in told:
        assert len(process["ended"]) == 2
        for text in process["ended"]:
            where = f"the input numeric of the row with the key {row}, then in the output of"
            assert f"first seen in {where}" in text


def test_going_on_from_parts_gives_the_same_bits(told: list[dict[str, Any]]) -> None:
    for process in told:
        for what in ("judged", "dataset", "resumed"):
            (history, weights), *rests = process[what]
            for rest_history, rest_weights in rests:
                assert rest_history == history
                assert_same(rest_weights, weights, tolerance=0.0)
        # Of the last checkpoint one part was damaged, so all took the one before it.
        assert process["spoilt"] == len(history) - 1


def test_a_dataset_of_ones_own_feeds_divided_weights(
    told: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "prepare")
    monkeypatch.setattr(recipe, "PREPARED", None)
    alone = fit_dataset(tmp_path / "prepare", World(), {})
    history, weights = told[0]["dataset"][0]
    for ours, theirs in zip(history, alone.history, strict=True):
        assert ours == pytest.approx(figures(theirs), rel=1e-4)
    assert_same(weights, alone.weights, tolerance=1e-4)


@pytest.mark.parametrize(("what", "tolerance"), [("normed", 1e-10), ("lost", 1e-5)])
def test_parts_and_copies_train_the_same(
    told: list[dict[str, Any]], what: str, tolerance: float
) -> None:
    """Buffers, weights in two places; a row that is no number, under a scaler."""
    copies: Told
    parts: Told
    copies, parts = told[0][what]
    for ours, theirs in zip(parts[0], copies[0], strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance)
    assert_same(parts[1], copies[1], tolerance)
    assert {epoch["skipped_steps"] for epoch in parts[0]} == {0 if what == "normed" else 1}


def test_large_entries_of_lists_are_gathered_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharded, "BLOCK_WEIGHTS", 30)
    inner = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    blocks = nn.ModuleList([nn.Sequential(inner, nn.Linear(2, 8)), nn.Linear(2, 2)])
    model = nn.ModuleDict({"blocks": blocks, "head": nn.Linear(8, 90)})
    # 72 weights; 18 are too few by themselves, and 42 with those of the block around them.
    assert find_blocks(model) == [inner[0], blocks[0]]
    # One of the weights is another block's too.
    assert [type(found) for found in find_blocks(Normed())] == [nn.Linear] * 2
    monkeypatch.setattr(sharded, "BLOCK_WEIGHTS", 1000)
    assert find_blocks(model) == []


@pytest.mark.parametrize("name", sorted(WHOLE.keys() & set(allowed("optimizer"))))
def test_an_optimizer_that_needs_whole_matrices_is_refused(name: str) -> None:
    optimizer = {"name": name, "lr": 0.1}
    with pytest.raises(UserError) as caught:
        check_names(
            train_params(optimizer=optimizer, loss={"name": "MSELoss"}, parallel="fsdp"),
            "classification",
        )
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["train.loss.name", "train.parallel"]
    assert f"{name} can't be used with fsdp" in str(caught.value)
    check_names(train_params(optimizer=optimizer), "classification")


def test_divided_weights_are_not_compiled() -> None:
    (problem,) = check_parallel(train_params(parallel="fsdp", compile=True))
    assert problem.key == "train.compile"
    assert "not compiled" in problem.message
    gpu, many = torch.device("cuda"), (10**12, 10**9)
    assert choose_compile("auto", gpu, *many)[0]
    assert choose_compile("auto", gpu, *many, sharded=True) == (
        False,
        "eager: the weights are sharded",
    )
    assert not shards_weights(train_params(parallel="fsdp"), World())
    assert not shards_weights(train_params(), World(0, 2))


def test_a_weight_that_can_not_be_divided_is_named() -> None:
    model = nn.ParameterDict({"scale": nn.Parameter(torch.ones(()))})
    with pytest.raises(UserError, match="which scale has not"):
        shard_model(model, torch.device("cpu"), World(0, 2))


def test_a_checkpoint_counts_when_all_of_its_parts_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds = [World(rank, 3) for rank in range(3)]
    # Each tells the others what it has.
    everyone = lambda *_: [list(_own_parts(tmp_path, world)) for world in worlds]  # noqa: E731
    monkeypatch.setattr(World, "gather", everyone)

    def write(epoch: int, mark: str, *ranks: int) -> None:
        for rank in ranks:
            write_part(tmp_path, (epoch, 0), {"of": rank}, mark, worlds[rank])

    def found() -> list[str]:
        (names,) = {tuple(name for name, _ in find_whole(tmp_path, world)) for world in worlds}
        return list(names)

    write(1, "aa", 1, 0)
    assert found() == []
    assert not has_whole(tmp_path)
    write(1, "aa", 2)
    assert found() == ["00000001-00000000-aa"]
    assert has_whole(tmp_path)
    # Another run has come as far: its parts are none of these.
    write(2, "bb", 1, 2)
    write(2, "cc", 0)
    (tmp_path / "00000002-00000000-dd-1of3.writing").touch()
    assert found() == ["00000001-00000000-aa"]
    for world in worlds:
        drop_older(tmp_path, world)
    assert len(list(tmp_path.iterdir())) == 7
    write(3, "ee", 2, 1, 0)
    write(4, "ff", 2, 1)
    assert found() == ["00000001-00000000-aa", "00000003-00000000-ee"]
    write(4, "ff", 0)
    for world in worlds:
        drop_older(tmp_path, world)
    assert found() == ["00000003-00000000-ee", "00000004-00000000-ff"]
    # Nothing is left of those before them, whole or not.
    assert len(list(tmp_path.iterdir())) == 6
    for world in worlds:
        assert torch.load(find_whole(tmp_path, world)[-1][1])["of"] == world.rank


def test_of_several_machines_each_has_its_own_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in (0, 1):
        write_part(tmp_path, (1, 0), {}, "aa", World(rank, 4, 2))
    assert not has_whole(tmp_path)
    monkeypatch.setenv("PET_NNODES", "2")
    monkeypatch.setenv("PET_RDZV_ENDPOINT", "here:1")
    assert has_whole(tmp_path)
