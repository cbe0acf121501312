"""Fully connected layers with ReLU between them."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.model.dropout import Dropout
from stages.model.layers import Flatten

MAX_WIDTH = 1_000_000


class Arguments(Config):
    """`layers` hidden layers of `width` units; `dropout` is the share of them set to zero."""

    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 128
    layers: Annotated[int, Field(ge=1, le=1000)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Model(nn.Module):
    """The two-layer network of every course when `layers` is 1."""

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        self.flatten = Flatten(inputs)
        sizes = [self.flatten.width] + [arguments.width] * arguments.layers
        hidden: list[nn.Module] = []
        for before, after in pairwise(sizes):
            hidden += [nn.Linear(before, after), nn.ReLU(), Dropout(arguments.dropout)]
        self.hidden = nn.Sequential(*hidden)
        self.output = nn.Linear(arguments.width, num_outputs)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        scores: Tensor = self.output(self.hidden(self.flatten(batch)))
        return scores
