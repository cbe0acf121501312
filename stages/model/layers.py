"""Layers that models of the zoo are made of, beside torch's own."""

import math

import torch
from torch import Tensor, nn

from stages.features.schema import CODES


class Flatten(nn.Module):
    """All of a batch as one row of numbers: (rows, `width`) float32.

    Numbers as they are, images flattened, and then categories one-hot (code 0, 'none of those in
    train', is all zeros).
    """

    def __init__(self, inputs: dict[str, list[int]]) -> None:
        super().__init__()
        self.dense = [kind for kind in inputs if kind not in CODES]
        self.num_codes = {kind: inputs[kind] for kind in CODES if kind in inputs}
        dense = sum(math.prod(inputs[kind]) for kind in self.dense)
        self.width = dense + sum(num - 1 for nums in self.num_codes.values() for num in nums)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Concatenate what the batch holds, in the order of the schema's kinds."""
        parts = [batch[kind].flatten(1) for kind in self.dense]
        for kind, nums in self.num_codes.items():
            for column, num_codes in enumerate(nums):
                codes = batch[kind][:, column]
                parts.append(nn.functional.one_hot(codes, num_codes)[:, 1:].float())
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
