"""Rows that are varied anew whenever they are learned from: `train.augment`.

What is drawn for a row follows from seed, epoch, step and its place in the whole batch, as for
dropout; the number of processes and the steps before change nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stages.common.errors import Problem, UserError
from stages.model.dropout import DropoutRng
from stages.tensors.batch import Batch
from stages.training.compatibility import check_images
from stages.training.params import Augment

AT = "train.augment"
NOISY = ("numeric", "image")


def make_augment(
    params: Augment | None, sample: Batch, dropout_rng: DropoutRng
) -> Callable[[Batch], Batch] | None:
    """A function that varies a batch; None: nothing does. `sample` is any batch of the features.

    Raises UserError for what the features can't have done to them.
    """
    if params is None:
        return None
    image = sample.get("image")
    problems = check_images("auto", params) if image is None else []
    if image is not None and params.shift >= min(image.shape[-2:]):
        sides = " x ".join(map(str, image.shape[-2:]))
        message = f"the images have {sides} pixels: a shift must be smaller"
        problems.append(Problem(message, f"{AT}.shift", str(params.shift)))
    if params.noise and not any(kind in sample for kind in NOISY):
        message = "there are no numeric columns and no images to add noise to"
        problems.append(Problem(message, f"{AT}.noise", f"{params.noise:g}", ("0",)))
    if problems:
        raise UserError(*problems)

    def augment(batch: Batch) -> Batch:
        varied = dict(batch)
        if params.flip:
            varied["image"] = flip(varied["image"], params.flip, dropout_rng)
        if params.shift:
            varied["image"] = shift(varied["image"], params.shift, dropout_rng)
        if params.noise:
            for kind in NOISY:
                if kind in varied:
                    noise = dropout_rng.draw_normal(varied[kind], *varied[kind].shape[1:])
                    varied[kind] = varied[kind] + params.noise * noise
        return varied

    return augment


def flip(images: Tensor, share: float, dropout_rng: DropoutRng) -> Tensor:
    """`images` (rows, channels, height, width), a share of them mirrored left to right."""
    mirrored = dropout_rng.draw_uniform(images, 1, 1, 1) < share
    return torch.where(mirrored, images.flip(-1), images)


def shift(images: Tensor, most: int, dropout_rng: DropoutRng) -> Tensor:
    """`images` (rows, channels, height, width), each moved by up to `most` pixels both ways.

    What comes in at a border repeats the pixels there.
    """
    rows, _, height, width = images.shape
    by = (dropout_rng.draw_uniform(images, 2) * (2 * most + 1)).floor().clamp(
        max=2 * most
    ).long() - most
    device = images.device
    y = (torch.arange(height, device=device) + by[:, :1]).clamp(0, height - 1)
    x = (torch.arange(width, device=device) + by[:, 1:]).clamp(0, width - 1)
    number = torch.arange(rows, device=device)[:, None, None]
    # Indices around a slice put the sliced dimension last: (rows, height, width, channels).
    return images[number, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2).contiguous()
