"""Columns of several kinds together, images among them: each its own way in, then common layers."""

from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.features.schema import CODES, WORDS
from stages.model.dropout import Dropout
from stages.model.layers import Flatten, PiecewiseLinear

MAX_WIDTH = 1_000_000
MAX_GROUPS = 4
# What is left of an image has at most so many places a side.
MAX_PLACES = 4


class Arguments(Config):
    """Numbers become `embedding` numbers each by way of `bins` bins; an image goes through a
    convolution for each number in `channels`, of which all but the first halve it, and becomes
    `width` numbers. `layers` layers of `width` units follow, with a share `dropout` set to zero.
    """

    channels: Annotated[list[Annotated[int, Field(ge=1, le=MAX_WIDTH)]], Field(min_length=1)] = (
        Field([16, 32, 64])
    )
    bins: Annotated[int, Field(ge=1, le=1000)] = 24
    embedding: Annotated[int, Field(ge=1, le=1000)] = 8
    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 128
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class Model(nn.Module):
    """It takes every kind of column, alone or with others."""

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        width = arguments.width
        self.dense = [kind for kind in inputs if kind not in (*CODES, *WORDS, "image")]
        num_dense = sum(inputs[kind][0] for kind in self.dense)
        others = {kind: shape for kind, shape in inputs.items() if kind in (*CODES, *WORDS)}
        self.numbers = (
            PiecewiseLinear(num_dense, arguments.bins, arguments.embedding) if num_dense else None
        )
        self.others = Flatten(others) if others else None
        has_image = "image" in inputs
        self.image = (
            _image_layers(inputs["image"], arguments.channels, width) if has_image else None
        )
        first = num_dense * arguments.embedding + width * has_image
        first += 0 if self.others is None else self.others.width
        hidden: list[nn.Module] = []
        for before, after in pairwise([first] + [width] * arguments.layers):
            hidden += [nn.Linear(before, after), nn.ReLU(), Dropout(arguments.dropout)]
        self.hidden = nn.Sequential(*hidden)
        self.output = nn.Linear(width, num_outputs)

    def fit(self, batch: dict[str, Tensor], target: Tensor) -> None:  # noqa: ARG002
        """Take the bins of numbers from the quantiles of train rows."""
        if self.numbers is not None:
            self.numbers.fit(self._dense(batch))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        parts = [] if self.numbers is None else [self.numbers(self._dense(batch))]
        parts += [] if self.others is None else [self.others(batch)]
        parts += [] if self.image is None else [self.image(batch["image"])]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        scores: Tensor = self.output(self.hidden(rows))
        return scores

    def _dense(self, batch: dict[str, Tensor]) -> Tensor:
        parts = [batch[kind] for kind in self.dense]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _image_layers(shape: list[int], channels: list[int], width: int) -> nn.Module:
    """Layers from an image (rows, channels, height, width) to `width` numbers (rows, width)."""
    before, *sides = shape
    layers: list[nn.Module] = []
    for index, after in enumerate(channels):
        stride = 1 if index == 0 else 2
        groups = max(g for g in range(1, MAX_GROUPS + 1) if after % g == 0)
        layers += [
            nn.Conv2d(before, after, 3, stride=stride, padding=1),
            nn.GroupNorm(groups, after),
            nn.ReLU(),
        ]
        sides = [-(-side // stride) for side in sides]
        before = after
    pool = [-(-side // MAX_PLACES) for side in sides]
    places = (sides[0] // pool[0]) * (sides[1] // pool[1])
    pooled = nn.AvgPool2d((pool[0], pool[1]))
    return nn.Sequential(*layers, pooled, nn.Flatten(), nn.Linear(before * places, width))
