"""Layers that models of the zoo are made of, beside torch's own."""

import math

import torch
from torch import Tensor, nn


class Flatten(nn.Module):
    """All of a batch as one row of numbers: (rows, `width`) float32.

    Numeric and boolean columns as they are, categorical ones one-hot (code 0, 'none of those
    in train', is all zeros), images flattened.
    """

    def __init__(self, inputs: dict[str, list[int]]) -> None:
        super().__init__()
        self.num_codes = inputs.get("categorical", [])
        dense = [math.prod(shape) for kind, shape in inputs.items() if kind != "categorical"]
        self.dense = [kind for kind in inputs if kind != "categorical"]
        self.width = sum(dense) + sum(self.num_codes) - len(self.num_codes)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Concatenate what the batch holds, in the order of the schema's kinds."""
        parts = [batch[kind].flatten(1) for kind in self.dense]
        for column, num_codes in enumerate(self.num_codes):
            codes = batch["categorical"][:, column]
            parts.append(nn.functional.one_hot(codes, num_codes)[:, 1:].float())
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
