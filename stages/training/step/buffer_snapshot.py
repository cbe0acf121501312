"""Snapshots of a model's buffers, such as the mean of a batch norm, over a step.

A forward pass moves it, so it has to be put back for a step that is not applied in the end. A
model may write into such a buffer, or put another tensor in its place: both are undone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.model.layers import CONSTANTS

# The buffers of a module by name, as it holds them itself, and one of the names.
Place = tuple[dict[str, Tensor | None], str]


def find_buffers(model: nn.Module) -> list[Place]:
    """The places of the buffers of `model` that a step may move; most models have none.

    Those that are registered by `stages.model.layers.register_constant` stay as they are.
    """
    return [
        (module._buffers, name)
        for module in model.modules()
        for name, _ in module.named_buffers(recurse=False)
        if name not in getattr(module, CONSTANTS, ())
    ]


@dataclass(frozen=True)
class BufferSnapshot:
    """A copy of the buffers at `places`: the tensors themselves, and copies of them."""

    places: Sequence[Place]
    tensors: list[Tensor]
    copies: list[Tensor]

    @torch.no_grad()
    def put_back(self) -> None:
        """Make them what they were."""
        for (held, name), tensor, copy in zip(self.places, self.tensors, self.copies, strict=True):
            held[name] = tensor.copy_(copy)

    def keep_where(self, applied: Tensor) -> None:
        """Leave them as they are now where `applied` (scalar) is true, and put them back where not.

        The device decides, and nobody waits for it, except for a buffer that has become one of
        another shape, type or device.
        """
        # To say `no_grad` takes longer than all else that is to do for a model without any.
        if self.places:
            self._choose(applied)

    @torch.no_grad()
    def _choose(self, applied: Tensor) -> None:
        for (held, name), tensor, copy in zip(self.places, self.tensors, self.copies, strict=True):
            now = held[name]
            if now is not None and _form(now) == _form(tensor) and now.device == applied.device:
                held[name] = torch.where(applied, now, copy, out=tensor)
            elif not applied.item():
                held[name] = tensor.copy_(copy)


def snapshot_buffers(places: Sequence[Place]) -> BufferSnapshot:
    """Copy the buffers at `places`, as they are now."""
    there = [(held, name) for held, name in places if held[name] is not None]
    tensors = [tensor for held, name in there if (tensor := held[name]) is not None]
    return BufferSnapshot(there, tensors, [tensor.clone() for tensor in tensors])


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.device
