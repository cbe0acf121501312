"""A step as a CUDA graph: what is recorded and played is the step itself, to the bit.

There is no GPU in these tests. `Tape` records as CUDA does, one operation after the other with the
memory that it was called with, and plays it by calling them again; whatever Python decides in a
step stays as it was at the recording, there as here.
"""

import dataclasses
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stages.common.errors import UserError
from stages.model.model import make_model
from stages.train.checkpoints.checkpoint import copied, pack, pack_rank, unpack
from stages.training.build import Assembly, assemble
from stages.training.data.batching import batches
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.state import Data, State
from stages.training.step.cuda_graph import GraphedStep, choose_graphs
from stages.training.step.cuda_graph_capture import Recorder
from tests.samples import Linear, classification, train_params
from tests.test_train import SPECS, pixels

pytestmark = pytest.mark.usefixtures("one_thread")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ADAMW = {"name": "AdamW", "lr": 0.01}
BENT = {"optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9}}


def data_of(kind: str) -> Data:
    # The last of an epoch's five batches is an odd one.
    return pixels(kind, 70, torch.float32)


class Tape(TorchDispatchMode):
    """What is called while it runs, with the tensors that go in and come out."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, call: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if call is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        came = call(*args, **(kwargs or {}))
        self.calls.append((call, args, kwargs or {}, came))
        return came

    @torch.no_grad()
    def play(self) -> None:
        for call, args, kwargs, came in self.calls:
            for old, new in zip(tree_leaves(came), tree_leaves(call(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old is not new:
                    old.copy_(new)


def recorder(made: Assembly, tapes: list[Tape]) -> Recorder:
    """Records without leaving a trace, as CUDA does, which runs nothing of it."""

    def record(run: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
        state = made.step.optimizer.state
        held = [*made.state.model.parameters(), *made.state.model.buffers()]
        held += [value for known in state.values() for value in known.values()]
        before = [tensor.detach().clone() for tensor in held]
        with Tape() as tape:
            run()
        with torch.no_grad():
            for tensor, values in zip(held, before, strict=True):
                tensor.copy_(values)
        tapes.append(tape)
        return tape.play

    return record


@dataclasses.dataclass
class Unseen:
    """Trains as on a device that nobody waits for: with a graph, or step by step."""

    monkeypatch: pytest.MonkeyPatch
    tapes: list[Tape] = dataclasses.field(default_factory=list)

    def __call__(
        self,
        network: nn.Module,
        data: Data,
        restore: Callable[[State], None] = lambda _: None,
        *,
        played: bool,
        **changes: Any,
    ) -> tuple[Any, list[Any]]:
        kept: list[Any] = []

        def assemble_unseen(*given: Any) -> Assembly:
            made = assemble(*given)
            step = dataclasses.replace(made.step, unseen=True)
            graphed = GraphedStep(step, 16, recorder(made, self.tapes))
            return dataclasses.replace(made, step=step, take=graphed.take if played else step.take)

        def keep(state: State) -> None:
            kept.append(copied(pack(state, [pack_rank(state)])))

        self.monkeypatch.setattr("stages.training.loop.assemble", assemble_unseen)
        self.tapes.clear()
        params = train_params(**{"optimizer": ADAMW, **changes})
        return train(network, data, params, 7, World(), lambda *_: None, restore, keep), kept


def both(unseen: Unseen, kind: str, data: Data | None = None, **changes: Any) -> Any:
    """What a training with a graph comes to; one without comes to the very same."""
    data = data or data_of(kind)
    alone, each = unseen(make_model(SPECS[kind], 3), data, played=False, **changes)
    result, kept = unseen(make_model(SPECS[kind], 3), data, played=True, **changes)
    assert same(result.history, alone.history)
    assert same(result.weights, alone.weights)
    assert all(map(same, kept, each))
    return result


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> Unseen:
    return Unseen(monkeypatch)


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(v, theirs[k]) for k, v in ours.items())
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs or (ours != ours and theirs != theirs))


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": BENT,
    "adam, clipped": {
        "optimizer": {"name": "Adam", "lr": 0.01},
        "clip_norm": 0.1,
        "clip_value": 0.05,
    },
    "a rate of each step, an average": {"schedule": {"name": "warmup_cosine"}, "ema": 0.9},
    "one cycle": {"schedule": {"name": "OneCycleLR", "cycle_momentum": False}},
    "two rates, noise": {
        "groups": [{"match": "output.*", "lr": 0.003, "frozen": False}],
        "augment": {"flip": 0.0, "shift": 0, "noise": 0.2},
    },
    "weights that stand": {"groups": [{"match": "*.bias", "lr": None, "frozen": True}]},
}


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_graph_takes_the_very_steps(name: str, kind: str, unseen: Unseen) -> None:
    both(unseen, kind, **RECIPES[name])
    assert len(unseen.tapes) == 1


def test_a_graph_leaves_out_what_is_no_number_and_goes_on(unseen: Unseen) -> None:
    data = data_of("mlp")
    data.train.batch["numeric"][11] = math.nan
    result = both(unseen, "mlp", data, epochs=4)
    assert len(unseen.tapes) == 1
    assert [epoch.skipped_steps for epoch in result.history] == [1, 1, 1, 1]


@pytest.mark.parametrize("number", [1, 7, 12])
def test_a_graph_is_recorded_anew_after_a_checkpoint(number: int, unseen: Unseen) -> None:
    data, changes = data_of("cnn"), {**BENT, "epochs": 4}
    whole, kept = unseen(make_model(SPECS["cnn"], 3), data, played=True, **changes)
    restore = partial(unpack, kept[number], World())
    rest, _ = unseen(make_model(SPECS["cnn"], 8), data, restore, played=True, **changes)
    assert len(unseen.tapes) == 1
    assert same(rest.history, whole.history)
    assert same(rest.weights, whole.weights)


class Counting(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        return super().forward(batch) / math.sqrt(self.calls)


class Drawing(Linear):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch) * random.random()


class DrawingWithNumpy(Linear):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch) * float(np.random.rand())  # noqa: NPY002


class DrawingOnTheHost(Linear):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch) * torch.rand(1)


class DrawingFromItsOwn(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.drawn = random.Random(3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch) * self.drawn.random()


class Asking(Linear):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        scores = super().forward(batch)
        return scores / 2 if scores.abs().max().item() > 1 else scores


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Counting, "the model or the loss draws or counts in Python"),
        (Drawing, "the model or the loss draws or counts in Python"),
        (DrawingWithNumpy, "the model or the loss draws or counts in Python"),
        (DrawingOnTheHost, "the model or the loss draws or counts in Python"),
        (DrawingFromItsOwn, "a recorded step comes to other numbers than the step itself"),
        (Asking, "not permitted when stream is capturing"),
    ],
)
def test_what_a_graph_would_get_wrong_is_taken_step_by_step(
    network: type[nn.Module], reason: str, unseen: Unseen, capsys: pytest.CaptureFixture[str]
) -> None:
    results = []
    for played in (False, True):
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        results.append(unseen(network(), classification(70), played=played)[0])
    told = capsys.readouterr().out
    assert told.count("no CUDA graph, the steps are taken one by one") == 1
    assert reason in told
    # The recording that was given up has left nothing behind, but in what nobody can look into.
    if network is not DrawingFromItsOwn:
        assert same(results[0].weights, results[1].weights)


def test_a_recording_of_nothing_is_found_out(
    unseen: Unseen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As where the work goes to another device than that which is recorded.
    monkeypatch.setattr(Tape, "play", lambda _: None)
    both(unseen, "cnn")
    assert "a recorded step comes to other numbers" in capsys.readouterr().out


def test_a_memory_too_small_to_try_a_recording_ends_no_training(
    unseen: Unseen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def play(tape: Tape) -> None:
        # It has come half way.
        call, args, kwargs, _ = tape.calls[-1]
        call(*args, **kwargs)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Tape, "play", torch.no_grad()(play))
    both(unseen, "cnn")
    assert "one by one: CUDA out of memory" in capsys.readouterr().out


def test_a_full_memory_gives_the_recording_up(
    unseen: Unseen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = Linear()

    def refuse(module: nn.Module, inputs: tuple[dict[str, Tensor]]) -> None:
        # The odd last batch of an epoch, once there is a recording.
        if module.training and unseen.tapes and len(inputs[0]["numeric"]) == 6:
            raise torch.OutOfMemoryError("CUDA out of memory")

    network.register_forward_pre_hook(refuse)
    result, _ = unseen(network, classification(70), played=True)
    assert "no CUDA graph, the steps are taken one by one: the memory" in capsys.readouterr().out
    assert result.micro_batch_size == 3
    assert len(result.history) == 3


def test_an_optimizer_whose_settings_move_is_taken_step_by_step(
    unseen: Unseen, capsys: pytest.CaptureFixture[str]
) -> None:
    both(unseen, "mlp", schedule={"name": "OneCycleLR"})
    assert "the optimizer's settings change from step to step" in capsys.readouterr().out


@pytest.mark.parametrize("played", [False, True])
def test_a_first_step_that_is_no_number_leaves_the_momentum_alone(
    unseen: Unseen, *, played: bool
) -> None:
    data = classification(70)
    first = batches(70, 16, 7, 1)[0]
    data.train.batch["numeric"][first[0]] = math.nan
    # Memory that is not written to then holds no numbers.
    torch.use_deterministic_algorithms(mode=True)
    try:
        result, _ = unseen(Linear(), data, played=played, **BENT)
    finally:
        torch.use_deterministic_algorithms(mode=False)
    assert [epoch.skipped_steps for epoch in result.history] == [1, 1, 1]
    assert all(weights.isfinite().all() for weights in result.weights.values())


def chosen(device: torch.device, products: int = 1000, **changes: Any) -> tuple[bool, str]:
    world, precision = changes.pop("world", World()), changes.pop("precision", "bf16")
    compiled = changes.pop("compiled", False)
    params = train_params(**{"optimizer": ADAMW, **changes})
    return choose_graphs(params, device, products, world, precision=precision, compiled=compiled)


def test_graphs_are_asked_for_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPRISE_CUDA_GRAPHS", raising=False)
    assert chosen(CPU) == (False, "")
    assert chosen(GPU) == (False, "step by step: REPRISE_CUDA_GRAPHS asks for no CUDA graph")
    monkeypatch.setenv("REPRISE_CUDA_GRAPHS", "auto")
    assert chosen(CPU) == (False, "")
    assert chosen(GPU) == (True, "steps as a CUDA graph: REPRISE_CUDA_GRAPHS")
    assert not chosen(GPU, 10**11)[0]
    monkeypatch.setenv("REPRISE_CUDA_GRAPHS", "on")
    assert chosen(GPU, 10**11)[0]
    for changes in (
        {"world": World(0, 2)},
        {"precision": "fp16"},
        {"compiled": True},
        {"micro_batch_size": 4},
        {"optimizer": {"name": "RMSprop", "lr": 0.1}},
    ):
        played, why = chosen(GPU, **changes)
        assert not played
        assert why.startswith("no CUDA graph of the steps: ")
    with pytest.raises(UserError, match="takes a GPU: the device is cpu"):
        chosen(CPU)
    monkeypatch.setenv("REPRISE_CUDA_GRAPHS", "yes")
    with pytest.raises(UserError, match="'yes': it must be off, auto or on"):
        chosen(GPU)
