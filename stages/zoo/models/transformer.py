"""A small transformer encoder over the words of texts, with what else a row holds as one more."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.common.errors import Problem, UserError
from stages.model.dropout import Dropout
from stages.model.layers import ByColumn, Flatten, wrong_inputs

# Of the first numbers of words, places and columns.
DEVIATION = 0.1
# The width of what is between two layers of a block, in widths of the block.
EXPANSION = 2


class Arguments(Config):
    """`layers` blocks of `heads` heads; a word is `width` numbers, which the heads divide.

    Of each column the first `places` words are looked at. `dropout` is the share of numbers set to
    zero, behind the embeddings and in each block.
    """

    width: Annotated[int, Field(ge=1, le=8192)] = 64
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    places: Annotated[int, Field(ge=1, le=4096)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Model(nn.Module):
    """Words know their place and their column; the mean of those that are there gives the scores.

    Norms stand before attention and layers, so that training needs no warm-up.
    """

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        if "text" not in inputs:
            raise wrong_inputs("transformer", "takes texts, with other columns or without", inputs)
        width = arguments.width
        if width % arguments.heads:
            message = f"a width of {width} can't be divided among {arguments.heads} heads"
            raise UserError(Problem(message, "build.model.heads", str(arguments.heads)))
        self.lengths = inputs["text"][::2]
        self.kept = [min(length, arguments.places) for length in self.lengths]
        self.tables = nn.ModuleList(nn.Embedding(num, width) for num in inputs["text"][1::2])
        # They tell columns apart, too.
        self.places = nn.ParameterList(torch.empty(length, width) for length in self.kept)
        for weight in (*self.tables.parameters(), *self.places):
            nn.init.normal_(weight, std=DEVIATION)
        others = {kind: shape for kind, shape in inputs.items() if kind != "text"}
        self.flatten = Flatten(others) if others else None
        self.others = nn.Linear(self.flatten.width, width) if self.flatten else None
        self.by_column = ByColumn()
        self.dropout = Dropout(arguments.dropout)
        self.blocks = nn.ModuleList(
            Block(width, arguments.heads, arguments.dropout) for _ in range(arguments.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        words, filled, start = [], [], 0
        columns = zip(self.tables, self.places, self.lengths, self.kept, strict=True)
        for column, (table, places, length, kept) in enumerate(columns):
            codes = batch["text"][:, start : start + kept]
            words.append(self.by_column(table(codes), "text", [column]) + places)
            filled.append(codes != 0)
            start += length
        if self.flatten is not None and self.others is not None:
            words.append(self.others(self.flatten(batch))[:, None])
            filled.append(torch.ones_like(filled[0][:, :1]))
        hidden, there = self.dropout(torch.cat(words, dim=1)), torch.cat(filled, dim=1)
        for block in self.blocks:
            hidden = block(hidden, there)
        share = there.to(hidden.dtype)[:, :, None]
        mean = (self.norm(hidden) * share).sum(dim=1) / share.sum(dim=1).clamp(min=1.0)
        scores: Tensor = self.output(mean)
        return scores


class Block(nn.Module):
    """Attention, and then two layers for each word; either is added to what goes in."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(
            nn.Linear(width, EXPANSION * width), nn.GELU(), nn.Linear(EXPANSION * width, width)
        )
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, there: Tensor) -> Tensor:
        """Take words (rows, places, width), and which of them are (rows, places)."""
        hidden = hidden + self.dropout(self._attend(self.before_attention(hidden), there))
        added: Tensor = self.dropout(self.layers(self.before_layers(hidden)))
        return hidden + added

    def _attend(self, hidden: Tensor, there: Tensor) -> Tensor:
        width = hidden.shape[-1]
        # (rows, heads, places, numbers of a head), of queries, keys and values.
        queries, keys, values = (
            each.unflatten(2, (self.heads, width // self.heads)).transpose(1, 2)
            for each in self.project(hidden).split(width, dim=2)
        )
        # A row of no word looks at all places alike, and its mean is 0.
        mask = torch.where(there, 0.0, -1e9).to(hidden.dtype)[:, None, None, :]
        found = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        joined: Tensor = self.join(found.transpose(1, 2).flatten(2))
        return joined
