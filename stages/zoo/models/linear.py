"""One linear layer: linear regression with MSELoss, logistic regression with CrossEntropyLoss.

A word of a text has a weight for each score, as it would have in a linear layer over TF-IDF.
"""

import torch
from torch import Tensor, nn

from stages.common.config import Config
from stages.model.layers import Flatten


class Arguments(Config):
    """A linear model has none."""


class Model(nn.Module):
    """scores = W x + b, over all columns of the batch; starts at zero, where the loss is convex."""

    def __init__(self, _: Arguments, inputs: dict[str, list[int]], num_outputs: int) -> None:
        super().__init__()
        self.flatten = Flatten(inputs, text_width=num_outputs)
        self.num_texts, self.num_outputs = self.flatten.num_texts, num_outputs
        self.num_columns = self.flatten.width - self.num_texts * num_outputs
        # Of texts alone there are no columns, of which ONNX makes no linear layer.
        self.output = nn.Linear(self.num_columns, num_outputs) if self.num_columns else None
        self.bias = None if self.num_columns else nn.Parameter(torch.zeros(num_outputs))
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        flat: Tensor = self.flatten(batch)
        parts: list[Tensor] = [] if self.bias is None else [self.bias]
        if self.output is not None:
            # No slice where it would take all: it would stand in model.onnx too.
            columns = flat[:, : self.num_columns] if self.num_texts else flat
            parts.append(self.output(columns))
        if self.num_texts:
            of_texts = flat[:, self.num_columns :].reshape(-1, self.num_texts, self.num_outputs)
            parts.append(of_texts.sum(dim=1))
        return sum(parts[1:], parts[0])
