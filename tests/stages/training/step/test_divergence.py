"""Where a number that is not finite first appears: in the step as it was, down to layer and row."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.model.dropout import Dropout
from stages.tensors.batch import Batch
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.state import Data
from stages.training.step.divergence import DivergedError
from tests.support.samples import classification, regression, train_params

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_ROWS = 16
# An epoch of one step, so one that is not applied ends the training.
ONE: dict[str, Any] = {"batch_size": NUM_ROWS, "epochs": 1}


class Layers(nn.Module):
    """Batch norm after the first layer, and then what a test puts `between` it and the last."""

    def __init__(self, num_outputs: int = 3, between: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.between = between or nn.Tanh()
        self.last = nn.Linear(6, num_outputs)

    def forward(self, batch: Batch) -> Tensor:
        scores: Tensor = self.last(self.between(self.norm(self.first(batch["numeric"]))))
        return scores


class By(nn.Module):
    """What a function makes of the values."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, values: Tensor) -> Tensor:
        return self.change(values)


def keyed(data: Data) -> Data:
    keys = np.array([f"row {number}" for number in range(len(data.train))])
    split = data.train
    assert isinstance(split, TensorSource)
    return Data(TensorSource(split.batch, split.target, keys), data.validation, data.task)


def first_seen(model: nn.Module, data: Data | None = None, **changes: Any) -> str:
    """What is said of where, after a training that ends; what the model counts is as it was."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    params = train_params(**{**ONE, **changes})
    with pytest.raises(DivergedError) as caught:
        train(model, data or classification(NUM_ROWS), params, 7, World(), lambda *_: None)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    assert not any(module._forward_hooks for module in model.modules())
    (line,) = [line for line in str(caught.value).splitlines() if "first seen" in line]
    return line.strip()


def test_a_row_that_is_no_number_is_named_and_not_the_layer_that_it_comes_to() -> None:
    data = keyed(classification(NUM_ROWS))
    data.train.batch["numeric"][5, 2] = math.nan
    where = "the input numeric of the row with the key row 5, then in the output of first (Linear)"
    assert first_seen(Layers(), data) == f"first seen in {where}"
    data.train.batch["numeric"][9, 0] = math.inf
    assert "the input numeric of the rows with the keys" in first_seen(Layers(), data)


def test_a_target_that_is_no_number_is_named() -> None:
    data = keyed(regression(NUM_ROWS))
    data.train.target[3] = math.inf
    said = first_seen(Layers(1), data, loss={"name": "MSELoss"})
    assert "the target of the row with the key row 3, then in the loss (MSELoss)" in said


def test_a_weight_that_is_no_number_is_named() -> None:
    model = Layers()
    with torch.no_grad():
        model.last.bias[1] = math.nan
    assert first_seen(model) == "first seen in the weight last.bias"


def test_an_overflow_of_float16_shows_where_it_is() -> None:
    # Finite in float32, in which it would not be seen at all.
    model = Layers(between=By(lambda values: 3e4 * torch.ones_like(values)))
    model.last.weight.data.fill_(1.0)
    data = classification(25 * NUM_ROWS)
    said = first_seen(model, data, precision="fp16", batch_size=NUM_ROWS)
    assert said == "first seen in the output of last (Linear)"


def test_what_dropout_alone_brings_about_is_seen() -> None:
    class Divided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = Dropout(0.5)

        def forward(self, values: Tensor) -> Tensor:
            return values / self.drop(torch.ones_like(values))

    assert first_seen(Layers(between=Divided())) == "first seen in the output of between (Divided)"


def test_what_is_added_to_the_rows_is_seen() -> None:
    class Squared(Layers):
        def forward(self, batch: Batch) -> Tensor:
            return super().forward({"numeric": (batch["numeric"] / 10).pow(20)})

    augment = {"flip": 0.0, "shift": 0, "noise": 1000.0}
    assert first_seen(Squared(), augment=augment) == "first seen in the output of first (Linear)"


def test_no_more_rows_at_once_are_looked_at_than_the_step_took(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(module: nn.Module, inputs: tuple[Batch]) -> None:
        if len(inputs[0]["numeric"]) > 4:
            raise torch.OutOfMemoryError("full")

    data = keyed(classification(NUM_ROWS))
    data.train.batch["numeric"][5, 2] = math.nan
    model = Layers()
    handle = model.register_forward_pre_hook(refuse)
    said = first_seen(model, data)
    handle.remove()
    assert "the row with the key row 5, then in the output of first" in said
    # 16, then 8: both in the step itself.
    assert capsys.readouterr().out.count("out of memory") == 2


def test_a_loss_is_named_as_the_recipe_has_it() -> None:
    model = Layers()
    # Finite scores, but their difference is not.
    model.last.bias.data = torch.tensor([3e38, -3e38, 0.0])
    said = first_seen(model, class_weights="balanced")
    assert said == "first seen in the loss (CrossEntropyLoss)"


class Rooted(nn.Module):
    """Its slope at 0 is no number."""

    def forward(self, values: Tensor) -> Tensor:
        return torch.sqrt(0 * values)


def test_a_gradient_is_named_where_the_forward_pass_is_finite() -> None:
    said = first_seen(Layers(between=Rooted()))
    assert said == "first seen in the gradient of norm.bias"


def test_a_norm_is_named_where_each_gradient_is_finite() -> None:
    model = Layers(1, By(lambda values: 1e25 * values))
    said = first_seen(model, regression(NUM_ROWS), loss={"name": "L1Loss"})
    assert said == "first seen in the norm of the gradient, though each number of it is finite"


def test_what_the_model_draws_by_itself_may_not_come_again() -> None:
    class Fickle(Layers):
        times = 0

        def forward(self, batch: Batch) -> Tensor:
            self.times += 1
            return super().forward(batch) * (math.nan if self.times == 1 else 1.0)

    assert "in what the model drew: computed once more, all is finite" in first_seen(Fickle())
