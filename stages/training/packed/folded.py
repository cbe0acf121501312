"""A model of fully connected layers for all members without `vmap`: their rows one below the other.

Where a model treats each row by itself, and its weights are those of `nn.Linear` alone, the rows of
all members can go through it as one batch; the layers alone must know which rows are whose. That
saves what `vmap` takes at each operation, which in small steps is most of the time.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stages.tensors.batch import Batch
from stages.training.packed.layout import Constants, Layout
from stages.training.packed.masks import MaskFeed

# Far above what another order of sums does, far below what rows of other members do.
TOLERANCE = 1e-3


class _Products(torch.autograd.Function):
    """`values` (members, rows, in) by `weight` (members, out, in) and `bias` (members, out).

    torch's own gradient of such a product is the transpose of that of `weight`: several times as
    slow where a layer has few outputs.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The scores (members, rows, out)."""
        ctx.save_for_backward(values, weight)
        return torch.baddbmm(bias[:, None], values, weight.mT)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """The gradients of all three, None where nobody asks."""
        values, weight = ctx.saved_tensors
        of_values = torch.bmm(gradient, weight) if ctx.needs_input_grad[0] else None
        return of_values, torch.bmm(gradient.mT, values), gradient.sum(dim=1)


@dataclass
class Folded:
    """A model whose layers take the weights of all members from `named`."""

    template: nn.Module
    feed: MaskFeed
    named: Mapping[str, Tensor] = field(default_factory=dict)

    def score(
        self, named: Mapping[str, Tensor], batch: Batch, masks: Sequence[Tensor], *, training: bool
    ) -> Tensor:
        """The scores (members, rows, …) of rows (members, rows, …), in the mode of `training`."""
        if self.template.training != training:
            self.template.train(training)
        self.named, self.feed.masks = named, iter([mask.flatten(0, 1) for mask in masks])
        folded = {kind: values.flatten(0, 1) for kind, values in batch.items()}
        scores: Tensor = self.template(folded)
        return scores.view(*next(iter(batch.values())).shape[:2], *scores.shape[1:])

    def compute(self, values: Tensor, name: str) -> Tensor:
        """The layer of that name: `values` (members * rows, …, in) as (members * rows, …, out)."""
        weight, bias = self.named[f"{name}.weight"], self.named[f"{name}.bias"]
        rows = values.reshape(len(weight), -1, values.shape[-1])
        scores: Tensor = _Products.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
        return scores.view(*values.shape[:-1], weight.shape[1])


def fold(
    template: nn.Module, feed: MaskFeed, layout: Layout, constants: Constants
) -> Folded | None:
    """The folded form of a template; None: it has other weights than those of trained layers."""
    trained = {name for group in layout.groups for name, _ in group}
    # The copy has the same feed of masks.
    folded = Folded(copy.deepcopy(template, {id(feed): feed}), feed)
    found: set[str] = set()
    for name, layer in _layers(folded.template):
        found |= {f"{name}.weight", f"{name}.bias"}
        layer.forward = partial(folded.compute, name=name)  # type: ignore[method-assign]
    held = [name for name, _ in template.named_parameters(remove_duplicate=False)]
    return folded if set(held) == found == trained and not constants.own else None


@torch.no_grad()
def agrees(one: Tensor, other: Tensor) -> bool:
    """Check whether scores, or gradients, are the same within rounding."""
    same_shape = one.shape == other.shape
    return same_shape and bool((one - other).abs().max() <= TOLERANCE * (1 + other.abs().max()))


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, layer in model.named_modules(remove_duplicate=False):
        if type(layer) is nn.Linear and layer.bias is not None:
            yield name, layer
