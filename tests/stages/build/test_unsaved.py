"""Models that keep something outside of their weights and buffers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.build.unsaved import check_unsaved
from stages.common.errors import UserError
from stages.model.model import ModelSpec

SPEC = ModelSpec(name="waves", arguments={}, inputs={"numeric": [4]}, num_outputs=3)


class Waves(nn.Module):
    """A layer of waves of lengths that `draw` makes, then a linear one that begins at zero."""

    def __init__(self, draw: Callable[[nn.Module], None]) -> None:
        super().__init__()
        draw(self)
        self.output = nn.Linear(5, 3)
        nn.init.zeros_(self.output.weight)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        lengths = self.lengths
        if isinstance(lengths, nn.Linear | list):
            layer = lengths if isinstance(lengths, nn.Linear) else lengths[0]
            return torch.as_tensor(self.output(layer(batch["numeric"]).cos()))
        values = batch["numeric"] @ torch.as_tensor(lengths)
        return torch.as_tensor(self.output(values.cos()))


def refused(draw: Callable[[nn.Module], None]) -> str:
    """The message about a model of these waves; nothing where it is right."""
    before, other = Waves(draw), Waves(draw)
    kept = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    try:
        check_unsaved(before, other, SPEC, 0)
    except UserError as error:
        return str(error)
    finally:
        assert all(torch.equal(tensor, kept[name]) for name, tensor in before.state_dict().items())
    return ""


def attribute(module: nn.Module) -> None:
    module.lengths = torch.randn(4, 5)


def of_numpy(module: nn.Module) -> None:
    module.lengths = np.random.default_rng().normal(size=(4, 5)).astype(np.float32)


def not_persistent(module: nn.Module) -> None:
    module.register_buffer("lengths", torch.randn(4, 5), persistent=False)


def buffer(module: nn.Module) -> None:
    module.register_buffer("lengths", torch.randn(4, 5))


def constant(module: nn.Module) -> None:
    module.lengths = torch.linspace(0, 1, 20).reshape(4, 5)


def listed(module: nn.Module) -> None:
    module.lengths = [nn.Linear(4, 5)]


def listed_again(module: nn.Module) -> None:
    module.first = nn.Linear(4, 5)
    module.lengths = [module.first]


@pytest.mark.parametrize("draw", [attribute, of_numpy, not_persistent])
def test_what_is_drawn_and_not_saved_is_named(draw: Callable[[nn.Module], None]) -> None:
    said = refused(draw)
    assert "'lengths' is in no file" in said
    assert "self.register_buffer('lengths', …)" in said


@pytest.mark.parametrize("draw", [buffer, constant, listed_again])
def test_what_the_weights_and_buffers_tell_is_right(draw: Callable[[nn.Module], None]) -> None:
    assert refused(draw) == ""


def test_layers_in_a_list_are_told_how_to_be_kept() -> None:
    said = refused(listed)
    assert "'lengths' of the model holds a Linear in a list" in said
    assert "make it an nn.ModuleList" in said
