"""The memory format of images and of the weights of convolutions: `train.channels_last`.

With the channels last, the tensor cores of a GPU take them as they lie; elsewhere it brings little
or nothing. The numbers are the same ones, but other kernels add them up, so the last bits change.
Weights that processes divide, and those that LBFGS lines up, stay as they are: images alone change.
"""

from collections.abc import Callable

import torch
from torch import nn

from stages.common.errors import UserError
from stages.tensors.batch import Batch
from stages.training.compatibility import check_images
from stages.training.params import Choice

HALF = ("bf16", "fp16")


def choose_memory_format(
    choice: Choice, precision: str, device: torch.device, sample: Batch
) -> tuple[bool, str]:
    """Decide whether channels come last; the choice in words beside it. `sample` is any batch.

    `auto`: on a GPU, for images in half precision. Raises UserError for `true` without images.
    """
    if "image" not in sample:
        if problems := check_images(choice, None):
            raise UserError(*problems)
        return False, ""
    last = (device.type == "cuda" and precision in HALF) if choice == "auto" else choice
    return last, f"channels {'last' if last else 'first'}"


def put_channels_last(model: nn.Module) -> None:
    """Lay the weights of `model` that have four dimensions out anew, in place."""
    # The types of nn.Module.to know of no format without a device.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def with_channels_last(augment: Callable[[Batch], Batch] | None) -> Callable[[Batch], Batch]:
    """`augment`, whose images then have their channels last."""

    def lay_out(batch: Batch) -> Batch:
        varied = batch if augment is None else augment(batch)
        return varied | {"image": varied["image"].contiguous(memory_format=torch.channels_last)}

    return lay_out
