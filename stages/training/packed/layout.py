"""The weights of several models of one architecture as rows of a few matrices.

A matrix has a row for each member of a pack and the weights of one group of the optimizer, one
behind the other: so a step is a few operations, however many tensors a model has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# A matrix (members, weights) for each group of the optimizer.
Stacked = list[Tensor]


@dataclass(frozen=True)
class Layout:
    """The names and shapes of the weights in each matrix, in their order."""

    groups: tuple[tuple[tuple[str, torch.Size], ...], ...]

    def name(self, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        """The weights by name, each (members, *shape): views of the matrices."""
        named: dict[str, Tensor] = {}
        for matrix, group in zip(weights, self.groups, strict=True):
            # One operation: its gradient is put together once, not once for each weight.
            parts = torch.split(matrix, [shape.numel() for _, shape in group], dim=1)
            for (name, shape), part in zip(group, parts, strict=True):
                named[name] = part.view(len(matrix), *shape)
        return named

    def stack(self, models: Sequence[nn.Module]) -> Stacked:
        """Copies of the weights of `models`, a row each."""
        named = [dict(model.named_parameters()) for model in models]
        return [
            torch.stack(
                [torch.cat([own[name].detach().flatten() for name, _ in group]) for own in named]
            )
            for group in self.groups
        ]

    @torch.no_grad()
    def put(self, weights: Sequence[Tensor], row: int, model: nn.Module) -> None:
        """Copy a row of the matrices into `model`."""
        own = dict(model.named_parameters())
        for name, weight in self.name([matrix[row : row + 1] for matrix in weights]).items():
            own[name].copy_(weight[0])


def find_layout(model: nn.Module, optimizer: Optimizer) -> Layout:
    """The layout of the weights of `model` that are trained, by the groups of its `optimizer`."""
    names = {weight: name for name, weight in model.named_parameters()}
    return Layout(
        tuple(
            tuple((names[weight], weight.shape) for weight in group["params"])
            for group in optimizer.param_groups
        )
    )


@dataclass(frozen=True)
class Constants:
    """The tensors of the models that no step moves: frozen weights, and buffers such as bins.

    `common` are equal in all members, `own` (members, …) are not.
    """

    common: Mapping[str, Tensor]
    own: Mapping[str, Tensor]

    def take(self, rows: Tensor) -> "Constants":
        """Those of some members."""
        return Constants(self.common, {name: values[rows] for name, values in self.own.items()})


def stack_constants(models: Sequence[nn.Module], layout: Layout) -> Constants:
    """The tensors that the models hold beside the weights in `layout`."""
    trained = {name for group in layout.groups for name, _ in group}
    held = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in models]
    common, own = {}, {}
    for name in held[0].keys() - trained:
        values = [tensors[name].detach() for tensors in held]
        if all(torch.equal(values[0], other) for other in values[1:]):
            common[name] = values[0]
        else:
            own[name] = torch.stack(values)
    return Constants(common, own)
