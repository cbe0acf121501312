"""Dropout in a pack: each member has the masks that it draws alone.

They follow from the seed of the member, the epoch, the step and the order of the layers. `vmap`
draws nothing itself, so the masks of all members are drawn before a step, and handed in.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from stages.model.dropout import Dropout, DropoutRng
from stages.tensors.batch import Batch


@dataclass(frozen=True)
class Call:
    """A call of a layer of Dropout: the layer's name, and the shape of a row's numbers."""

    layer: str
    shape: torch.Size
    dtype: torch.dtype


@dataclass
class MaskFeed:
    """The masks of the pass that runs, in the order in which the layers ask for them."""

    masks: Iterator[Tensor] = field(default_factory=lambda: iter(()))

    def apply(self, values: Tensor, p: float) -> Tensor:  # noqa: ARG002
        """`values` times the next mask."""
        return values * next(self.masks)


def make_template(models: Sequence[nn.Module]) -> tuple[nn.Module, MaskFeed]:
    """A model of their architecture for `functional_call`, and what feeds it with masks.

    Its Dropout asks for a mask wherever that of any of `models` drops something.
    """
    template, feed = copy.deepcopy(models[0]), MaskFeed()
    for name, layer in _layers(template).items():
        layer.p = max(_layers(model)[name].p for model in models)
        layer.apply_rng = feed.apply
    return template, feed


@torch.no_grad()
def record_calls(template: nn.Module, batch: Batch) -> list[Call]:
    """The calls of Dropout in a pass of a training, by trying it with the rows of `batch`."""
    calls: list[Call] = []

    def record(values: Tensor, _p: float, name: str) -> Tensor:
        calls.append(Call(name, values.shape[1:], values.dtype))
        return values

    layers = _layers(template)
    before = {name: layer.apply_rng for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.apply_rng = partial(record, name=name)
    template.train()
    template(batch)
    for name, layer in layers.items():
        layer.apply_rng = before[name]
    return calls


def shares_of(model: nn.Module) -> dict[str, float]:
    """The share that each layer of Dropout sets to zero, by the layer's name."""
    return {name: layer.p for name, layer in _layers(model).items()}


def make_ones(calls: Sequence[Call], num_members: int, num_rows: int) -> tuple[Tensor, ...]:
    """Masks (members, rows, …) for each call that drop nothing."""
    return tuple(
        torch.ones((), dtype=call.dtype).expand(num_members, num_rows, *call.shape)
        for call in calls
    )


def draw_masks(
    calls: Sequence[Call],
    rngs: Sequence[DropoutRng],
    shares: Sequence[Mapping[str, float]],
    num_rows: int,
) -> tuple[Tensor, ...]:
    """The masks of a step (members, rows, …) for each call; each member draws from its own `rngs`.

    The step has begun for them. `shares` are those of the members' layers.
    """
    kept = [np.ones((len(rngs), num_rows, *call.shape), np.bool_) for call in calls]
    factors = [[1.0] * len(rngs) for _ in calls]
    for row, (rng, own) in enumerate(zip(rngs, shares, strict=True)):
        for number, call in enumerate(calls):
            # Alone, a layer that drops nothing draws nothing.
            if share := own[call.layer]:
                factors[number][row] = 1 / rng.draw_kept(kept[number][row], share)
    masks = []
    for call, own_kept, own_factors in zip(calls, kept, factors, strict=True):
        # From bytes torch converts several times as fast.
        mask = torch.from_numpy(own_kept.view(np.uint8)).to(call.dtype)
        factor = torch.tensor(own_factors, dtype=call.dtype)
        masks.append(mask.mul_(factor.view(-1, *[1] * (mask.ndim - 1))))
    return tuple(masks)


def _layers(model: nn.Module) -> dict[str, Dropout]:
    return {n: module for n, module in model.named_modules() if isinstance(module, Dropout)}
