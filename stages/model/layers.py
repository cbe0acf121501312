"""Layers that models of the zoo are made of, beside torch's own."""

import math

import torch
from torch import Tensor, nn

from stages.features.schema import CODES, WORDS

# The attribute of a module that names its constant buffers.
CONSTANTS = "constant_names"
# The numbers that a text becomes where a model doesn't say otherwise.
TEXT_WIDTH = 64
# Of the first numbers of a word.
INITIAL_DEVIATION = 0.1


def register_constant(
    module: nn.Module, name: str, values: Tensor, *, persistent: bool = True
) -> None:
    """Register a buffer that no step moves, such as bins: steps need not keep a copy of it.

    `persistent`: it is in the model's file; else it follows from the arguments.
    """
    module.register_buffer(name, values, persistent=persistent)
    setattr(module, CONSTANTS, (*getattr(module, CONSTANTS, ()), name))


class Flatten(nn.Module):
    """All of a batch as one row of numbers: (rows, `width`) float32.

    Numbers as they are, images flattened, and then categories one-hot (code 0, 'none of those in
    train', is all zeros), and of each text `text_width` numbers of a `TextBag`.
    """

    def __init__(self, inputs: dict[str, list[int]], text_width: int = TEXT_WIDTH) -> None:
        super().__init__()
        self.dense = [kind for kind in inputs if kind not in (*CODES, *WORDS)]
        self.num_codes = {kind: inputs[kind] for kind in CODES if kind in inputs}
        dense = sum(math.prod(inputs[kind]) for kind in self.dense)
        self.width = dense + sum(num - 1 for nums in self.num_codes.values() for num in nums)
        self.words = [kind for kind in WORDS if kind in inputs]
        self.bags = nn.ModuleList(TextBag(inputs[kind], text_width) for kind in self.words)
        self.num_texts = sum(len(inputs[kind]) // 2 for kind in self.words)
        self.text_width = text_width
        self.width += self.num_texts * text_width

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Concatenate what the batch holds, in the order of the schema's kinds."""
        parts = [batch[kind].flatten(1) for kind in self.dense]
        for kind, nums in self.num_codes.items():
            for column, num_codes in enumerate(nums):
                codes = batch[kind][:, column]
                parts.append(nn.functional.one_hot(codes, num_codes)[:, 1:].float())
        parts += [bag(batch[kind]) for kind, bag in zip(self.words, self.bags, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class TextBag(nn.Module):
    """Of each text column `width` numbers: (rows, columns * width) float32, whatever the order.

    Each word has as many of its own, of which the sum is taken, with weights whose squares add up
    to 1. A word weighs the more the rarer it is: codes go by how many train rows have the word,
    and that falls as 1/rank (Zipf), so that the logarithm of the rank is the inverse document
    frequency except for a constant. `shape` is that of `Schema.inputs`.
    """

    def __init__(self, shape: list[int], width: int) -> None:
        super().__init__()
        self.lengths, nums = shape[::2], shape[1::2]
        self.tables = nn.ModuleList(nn.Embedding(num, width) for num in nums)
        for table in self.tables.parameters():
            # A word that training hardly meets must stay as quiet as it begins.
            nn.init.normal_(table, std=INITIAL_DEVIATION)
        for column, num in enumerate(nums):
            register_constant(self, f"weights{column}", _weights(num), persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Take codes (rows, places), of which 0 is none."""
        parts, start = [], 0
        for column, (table, length) in enumerate(zip(self.tables, self.lengths, strict=True)):
            own = codes[:, start : start + length]
            weights = self.get_buffer(f"weights{column}")[own]
            size = weights.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1.0)
            parts.append(torch.bmm((weights / size)[:, None], table(own))[:, 0])
            start += length
        return torch.cat(parts, dim=1)


def _weights(num_codes: int) -> Tensor:
    """Of no word 0, of one that train lacks 1, and then 2 + ln(rank)."""
    ranks = torch.arange(1, num_codes - 1, dtype=torch.float32)
    return torch.cat([torch.tensor([0.0, 1.0]), 2 + ranks.log()])
