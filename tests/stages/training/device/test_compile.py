"""A compiled training is the same training."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages.common.config import validate
from stages.common.errors import UserError
from stages.model.dropout import Dropout
from stages.tensors.batch import Batch
from stages.train.checkpoints.checkpoint import copied, load_state_dict, rank_state_dict, state_dict
from stages.training.build import assemble
from stages.training.data.batching import epoch_batches, local_batches
from stages.training.data.source import TensorSource
from stages.training.device import compile as compiled
from stages.training.device.compile import Compiled, choose_compile, lacking_compiler
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.optim.preflight import check_names
from stages.training.params import TrainParams
from stages.training.state import Data, Result, State
from stages.training.step.step import build_ddp_buckets
from tests.conftest import ROOT, project_environment
from tests.support.samples import classification, train_params
from tests.support.training.models import figures

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ALL = slice(None)
# Three batches of 16 and one of 2.
DATA = classification(num_rows=50)
DOUBLE = Data(
    *(
        TensorSource(
            {kind: values.double() for kind, values in split.take(ALL)[0].items()}, split.target
        )
        for split in (DATA.train, DATA.validation)
    ),
    DATA.task,
)


class Drops(nn.Module):
    """Two dropouts of the zoo, one after the other, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        first, last = nn.Linear(4, 16), nn.Linear(16, 3)
        self.layers = nn.Sequential(first, nn.ReLU(), Dropout(0.3), Dropout(0.2), last)
        self.num_python = 0

    def forward(self, batch: Batch) -> torch.Tensor:
        if not torch.compiler.is_compiling():
            self.num_python += 1
        scores: torch.Tensor = self.layers(batch["numeric"])
        return scores


class Counts(nn.Module):
    """A model that is another one in every step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.number = nn.Linear(4, 3), 0

    def forward(self, batch: Batch) -> torch.Tensor:
        self.number += 1
        scores: torch.Tensor = self.layer(batch["numeric"]) * self.number
        return scores


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch captures of a model, without code that is written for it: takes no minute."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")


def run(network: nn.Module, restore: Callable[[State], None] = lambda _: None, **changes: Any):
    kept: list[Any] = []

    def keep(state: State) -> None:
        kept.append(copied(state_dict(state, [rank_state_dict(state)])))

    result = train(network, DATA, params(**changes), 7, World(), lambda *_: None, restore, keep)
    return result, kept


def params(**changes: Any) -> TrainParams:
    return train_params(**{"epochs": 3, "ema": 0.9, **changes})


def drops() -> Drops:
    torch.manual_seed(3)
    return Drops()


def assert_same(ours: Result, theirs: Result) -> None:
    assert ours.history == theirs.history
    assert ours.weights.keys() == theirs.weights.keys()
    for name, weight in theirs.weights.items():
        assert torch.equal(ours.weights[name], weight)


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("size", [None, 6])
def test_compiled_steps_drop_the_same_and_odd_rows_go_through_the_model(size: int | None) -> None:
    eager, kept = run(drops(), micro_batch_size=size)
    network = drops()
    ours, _ = run(network, compile=True, micro_batch_size=size)
    assert_same(ours, eager)
    # In each epoch, the odd ones: the last batch, and of a batch in parts of 6 its last 4.
    assert network.num_python == 3 * (1 if size is None else 4)
    # Killed in the second epoch, and compiled anew.
    rest, _ = run(
        drops(), partial(load_state_dict, kept[6], World()), compile=True, micro_batch_size=size
    )
    assert_same(rest, eager)


# As three processes show it to each other's gradients, before the first step.
@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("size", [None, 2])
def test_a_look_at_the_gradients_changes_no_step(size: int | None) -> None:
    changed = params(compile=True, micro_batch_size=size)
    plain, looked = (assemble(drops(), DATA, changed, 7, World()) for _ in range(2))
    build_ddp_buckets(looked.context, *DATA.train.take(slice(0, 2)))
    for made in (plain, looked):
        made.context.wrapped_model.train()
        made.context.dropout_rng.begin_epoch(7, 1)
        (batch,) = local_batches(DATA.train, epoch_batches(50, 16, 7, 1)[:1], World(), 7)
        made.train_step(batch, made.state)
    for ours, theirs in zip(
        looked.context.trainable_params, plain.context.trainable_params, strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("light")
def test_half_of_the_rows_at_once_are_the_usual_ones_from_there_on() -> None:
    network, result = drops(), Result()
    seen: list[int] = []

    def note(batch: Batch) -> torch.Tensor:
        seen.append(len(batch["numeric"]))
        return network(batch)

    both = Compiled(network, note, lambda: result.micro_batch_size or 16, (ValueError,))
    for micro, rows in ((None, 16), (None, 8), (8, 8), (8, 2)):
        result.micro_batch_size = micro
        both({"numeric": torch.zeros(rows, 4)})
    assert seen == [16, 8]
    assert [name for name, _ in both.named_parameters()] == [
        f"model.{name}" for name, _ in network.named_parameters()
    ]


@pytest.mark.usefixtures("light")
def test_a_model_that_can_not_be_compiled_once_is_refused() -> None:
    with pytest.raises(UserError, match="can't be compiled: a value in it") as caught:
        run(Counts(), epochs=9, ema=None, compile=True)
    assert caught.value.problems[0].key == "train.compile"


def test_auto_compiles_on_a_gpu_what_is_long_enough_by_sizes_and_steps() -> None:
    products = 100_000_000 * 64
    assert choose_compile("auto", GPU, 1000, 299_999) == (
        False,
        "eager: 299,999 steps would not repay to compile",
    )
    assert choose_compile("auto", GPU, 1000, 300_000) == (True, "compiled: 300,000 steps repay it")
    assert [choose_compile("auto", GPU, products, n)[0] for n in (78_000, 79_000)] == [False, True]
    assert choose_compile("auto", CPU, products, 10**9)[0] is False
    assert choose_compile(True, CPU, 1, 1) == (True, "compiled: train.compile")
    assert choose_compile(False, GPU, products, 10**9) == (False, "eager: train.compile")


def test_without_a_compiler_true_is_refused_before_any_data_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REPRISE_DEVICE", "cpu")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert lacking_compiler("cpu") == "a C++ compiler (CXX, else no-such-compiler)"
    check_names(train_params(compile=False), "classification")
    with pytest.raises(UserError) as caught:
        check_names(train_params(compile=True, loss={"name": "MSELoss"}), "classification")
    assert [problem.key for problem in caught.value.problems] == [
        "train.loss.name",
        "train.compile",
    ]
    assert caught.value.problems[1].allowed == ("false",)


def test_what_is_neither_auto_nor_true_nor_false_is_told_with_what_is_allowed() -> None:
    with pytest.raises(UserError) as caught:
        validate(TrainParams, {**train_params().model_dump(), "compile": "True"}, at="train")
    (problem,) = caught.value.problems
    assert problem.allowed == ("auto", "true", "false")
    assert problem.suggestion == "true"


# What torch's own modules warn of when they are loaded to compile is not ours.
@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_code_that_is_written_for_a_model_gives_the_same_bits_twice() -> None:
    eager, _ = run(drops())
    first, kept = run(drops(), compile=True)
    assert_same(run(drops(), compile=True)[0], first)
    assert_same(run(drops(), partial(load_state_dict, kept[6], World()), compile=True)[0], first)
    from torch._dynamo.utils import counters

    assert counters["stats"]["unique_graphs"] > 0
    for name, weight in eager.weights.items():
        torch.testing.assert_close(first.weights[name], weight, rtol=1e-4, atol=1e-6)


ONE_OF_TWO = """
import sys
import torch
import torch.distributed as dist
from stages.training.device.environment import World
from stages.training.data.source import TensorSource
from stages.training.state import Data
from tests.stages.training.device import test_compile as test

rank, store, out = int(sys.argv[1]), *sys.argv[2:]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
world = World(rank, 2)
compiled, eager = (
    test.train(
        test.drops().double(), test.DOUBLE, test.params(compile=on), 7, world, lambda *_: None
    )
    for on in (True, False)
)
if rank == 0:
    both = [[test.figures(e) for e in result.history] for result in (compiled, eager)]
    torch.save((*both, compiled.weights, eager.weights), out)
dist.destroy_process_group()
"""


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_compile_what_one_does(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("store", "out.pt")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO, str(rank), *files],
            cwd=ROOT,
            env={**project_environment(), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    compiled, eager, weights, eager_weights = torch.load(files[1])
    alone = train(drops().double(), DOUBLE, params(), 7, World(), lambda *_: None)
    for history in (compiled, eager):
        for ours, theirs in zip(history, alone.history, strict=True):
            assert ours == pytest.approx(figures(theirs), rel=1e-10)
    for name, weight in alone.weights.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-10, atol=1e-12)
    # The bits show that it was compiled.
    assert any(not torch.equal(weights[name], eager_weights[name]) for name in weights)
