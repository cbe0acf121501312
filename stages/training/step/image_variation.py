"""Ways to vary images (rows, channels, height, width), each row its own way: `train.augment`."""

import math

import torch
from torch import Tensor, nn

from stages.model.dropout import DropoutRng

# What is left of an image is at most so much wider or narrower than it was.
MOST_STRETCH = 4 / 3


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


def crop_and_turn(images: Tensor, crop: float, turn: float, dropout_rng: DropoutRng) -> Tensor:
    """Of each image a part at a random place, turned, and brought to the full size.

    Up to the share `crop` of its area is cut off, and it is turned by up to `turn` degrees. What
    lies outside the image repeats the pixels at its border.
    """
    drawn = dropout_rng.draw_uniform(images, 5).T
    height, width = images.shape[-2:]
    share = 1 - crop * drawn[0]
    stretch = ((2 * drawn[1] - 1) * math.log(MOST_STRETCH) / 2).exp() if crop else 1.0
    # Of the half sides of the image, which are 1.
    tall, across = (share.sqrt() / stretch).clamp(max=1), (share.sqrt() * stretch).clamp(max=1)
    down, right = (2 * drawn[2] - 1) * (1 - tall), (2 * drawn[3] - 1) * (1 - across)
    angle = (2 * drawn[4] - 1) * math.radians(turn)
    cos, sin = angle.cos(), angle.sin()
    # A turn by pixels: in half sides, x and y are of different lengths.
    x = torch.stack([cos * across, -sin * tall * height / width, right], dim=1)
    y = torch.stack([sin * across * width / height, cos * tall, down], dim=1)
    grid = nn.functional.affine_grid(
        torch.stack([x, y], dim=1), list(images.shape), align_corners=False
    )
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def colour(images: Tensor, most: float, dropout_rng: DropoutRng) -> Tensor:
    """`images` that are standardised, each channel brighter or darker, with more or less contrast.

    Channels vary by themselves, so that an image in colour takes on a tint.
    """
    drawn = (2 * dropout_rng.draw_uniform(images, 2, images.shape[1], 1, 1) - 1) * most
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + (images - mean) * (1 + drawn[:, 0]) + drawn[:, 1]


def cutout(images: Tensor, share: float, dropout_rng: DropoutRng) -> Tensor:
    """`images` with a square of each at its mean, the side of which is `share` of the shorter."""
    height, width = images.shape[-2:]
    side = share * min(height, width)
    drawn = dropout_rng.draw_uniform(images, 2)
    inside = []
    for number, length in enumerate((height, width)):
        # The middle of the square may be any pixel.
        away = torch.arange(length, device=images.device) + 0.5 - drawn[:, number, None] * length
        inside.append(away.abs() * 2 <= side)
    hole = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    return torch.where(hole, images.mean(dim=(2, 3), keepdim=True), images)
