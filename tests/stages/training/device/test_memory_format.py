"""Channels first or last: the same training, laid out in another way."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from stages.common.errors import UserError
from stages.model.model import ModelSpec, make_model
from stages.train.checkpoints.checkpoint import copied, load_state_dict, rank_state_dict, state_dict
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.device.memory_format import choose_memory_format
from stages.training.loop import train
from stages.training.state import Data, State
from tests.support.samples import classification, train_params
from tests.support.training.models import figures

pytestmark = pytest.mark.usefixtures("one_thread")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SPEC = ModelSpec(
    name="cnn",
    arguments={"channels": [4, 8], "width": 16, "dropout": 0.3},
    inputs={"image": [3, 6, 6]},
    num_outputs=3,
)
RECIPE: dict[str, Any] = {
    "epochs": 2,
    "micro_batch_size": 7,
    "augment": {"flip": 0.5, "shift": 1, "noise": 0.1},
    "optimizer": {"name": "AdamW", "lr": 0.01},
    "ema": 0.9,
}


def images(num_rows: int, seed: int) -> TensorSource:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randn(num_rows, 3, 6, 6, generator=random, dtype=torch.float64)
    return TensorSource({"image": pixels}, torch.randint(3, (num_rows,), generator=random))


DATA = Data(images(50, 0), images(20, 1), "classification")


def are_last(network: nn.Module) -> set[bool]:
    return {
        weight.is_contiguous(memory_format=torch.channels_last)
        for weight in network.parameters()
        if weight.ndim == 4 and weight.shape[1] > 1
    }


def run(restore: Any = lambda _: None, **changes: Any) -> tuple[Any, nn.Module, list[Any]]:
    kept: list[Any] = []

    def keep(state: State) -> None:
        kept.append(copied(state_dict(state, [rank_state_dict(state)])))

    network = make_model(SPEC, seed=4).double()
    params = train_params(**RECIPE, **changes)
    result = train(network, DATA, params, 7, World(), lambda *_: None, restore, keep)
    return result, network, kept


def test_the_layout_changes_rounding_alone_and_a_kill_nothing() -> None:
    first, network, _ = run()
    assert are_last(network) == {False}
    last, network, kept = run(channels_last=True)
    assert are_last(network) == {True}
    for mine, theirs in zip(last.history, first.history, strict=True):
        assert figures(mine) == pytest.approx(figures(theirs), rel=1e-10)
    for name, weight in first.weights.items():
        torch.testing.assert_close(last.weights[name], weight, rtol=1e-8, atol=1e-10)
    rest, _, _ = run(partial(load_state_dict, kept[6], World()), channels_last=True)
    assert rest.history == last.history
    for name, weight in last.weights.items():
        assert torch.equal(rest.weights[name], weight)


def test_in_training_the_images_have_their_channels_last() -> None:
    seen: list[bool] = []
    network = make_model(SPEC, seed=4).double()

    def look(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if module.training:
            seen.append(given[0].is_contiguous(memory_format=torch.channels_last))

    network.blocks.register_forward_pre_hook(look)  # type: ignore[operator,union-attr]
    params = train_params(epochs=1, channels_last=True)
    train(network, DATA, params, 7, World(), lambda *_: None)
    assert seen == [True] * 4


def test_an_optimizer_that_lines_up_all_weights_takes_them_as_they_are() -> None:
    # torch's LBFGS asks for memory in one order alone; the images' may still be another.
    lined_up: dict[str, Any] = {"optimizer": {"name": "LBFGS", "lr": 0.1, "max_iter": 3}}
    first, last = (
        train(
            make_model(SPEC, seed=4).double(),
            DATA,
            train_params(**RECIPE | lined_up, channels_last=layout),
            7,
            World(),
            lambda *_: None,
        )
        for layout in (False, True)
    )
    for name, weight in first.weights.items():
        torch.testing.assert_close(last.weights[name], weight, rtol=1e-10, atol=1e-10)


def test_auto_is_for_images_on_a_gpu_in_half_precision() -> None:
    sample, table = {"image": torch.zeros(1, 3, 6, 6)}, {"numeric": torch.zeros(1, 4)}
    chosen = [
        choose_memory_format("auto", precision, device, sample)
        for device in (CPU, GPU)
        for precision in ("fp32", "bf16", "fp16")
    ]
    assert [last for last, _ in chosen] == [False] * 4 + [True] * 2
    assert {words for _, words in chosen} == {"channels first", "channels last"}
    assert choose_memory_format("auto", "bf16", GPU, table) == (False, "")
    assert choose_memory_format(False, "bf16", GPU, sample)[0] is False
    assert choose_memory_format(True, "fp32", CPU, sample)[0] is True


def test_without_images_true_is_refused() -> None:
    data, params = classification(), train_params(channels_last=True)
    with pytest.raises(UserError) as caught:
        train(nn.Linear(4, 3), data, params, 7, World(), lambda *_: None)
    (problem,) = caught.value.problems
    assert (problem.key, problem.allowed) == ("train.channels_last", ("auto", "false"))
