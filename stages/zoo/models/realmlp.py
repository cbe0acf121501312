"""A fully connected network with well-chosen parts: for tables, classes and few rows above all.

RealMLP (Holzmüller, Grinsztajn, Steinwart: Better by default, NeurIPS 2024). Its recipe goes with
it: `optimizer: {name: Adam, lr: 0.04, betas: [0.9, 0.95]}` (0.2 for values), `schedule: {name:
coslog4}`, 256 epochs. Where the paper has a learning rate of its own for a kind of weight, here the
weight is multiplied by that factor: Adam's step is of the same length whatever the gradient's.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.features.schema import CODES, WORDS
from stages.model.dropout import Dropout
from stages.model.layers import ByColumn, TextBag, join_near, register_constant, wrong_inputs

MAX_WIDTH = 1_000_000
# Learning rates beside that of the weights.
SCALE_RATE, BIAS_RATE, EMBEDDING_RATE, SLOPE_RATE = 6.0, 0.1, 0.1, 0.1
# Categories up to so many are a number each, of more each is a vector of that length.
MAX_ONE_HOT, EMBEDDING = 9, 8
TEXT_WIDTH = 64
# The rows that first weights are made from.
FIT_ROWS = 4096
LARGEST = float(torch.finfo(torch.float32).max)


class Arguments(Config):
    """`layers` hidden layers of `width` units, a share `dropout` of them set to zero; a number
    is seen through `frequencies` waves, drawn with the deviation `sigma`.
    """

    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 256
    layers: Annotated[int, Field(ge=1, le=100)] = 3
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.15
    frequencies: Annotated[int, Field(ge=1, le=1000)] = 16
    sigma: Annotated[float, Field(gt=0, le=100)] = 0.1


class Model(nn.Module):
    """Numbers scaled and embedded, categories as numbers, then layers of one kind."""

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        if "image" in inputs:
            raise wrong_inputs("realmlp", "takes no images", inputs)
        self.num_outputs = num_outputs
        self.dense = [kind for kind in inputs if kind not in (*CODES, *WORDS)]
        num_dense = sum(inputs[kind][0] for kind in self.dense)
        self.numbers = Numbers(num_dense, arguments) if num_dense else None
        self.codes = {kind: inputs[kind] for kind in CODES if kind in inputs}
        self.tables = nn.ModuleList(
            nn.Embedding(num, EMBEDDING)
            for nums in self.codes.values()
            for num in nums
            if num - 1 > MAX_ONE_HOT
        )
        self.bags = nn.ModuleDict(
            {kind: TextBag(inputs[kind], TEXT_WIDTH) for kind in WORDS if kind in inputs}
        )
        self.by_column = ByColumn()
        width = num_dense * Numbers.WIDTH
        width += sum(_width(num) for nums in self.codes.values() for num in nums)
        width += sum(TEXT_WIDTH * len(inputs[kind]) // 2 for kind in self.bags)
        self.scale = nn.Parameter(torch.zeros(width))
        sizes = [width, *[arguments.width] * arguments.layers]
        activation = nn.functional.mish if num_outputs == 1 else nn.functional.selu
        hidden: list[nn.Module] = []
        for before, after in pairwise(sizes):
            hidden += [
                Linear(before, after),
                Activation(after, activation),
                Dropout(arguments.dropout),
            ]
        self.hidden = nn.Sequential(*hidden)
        self.output = Linear(sizes[-1], num_outputs)
        register_constant(self, "bounds", torch.tensor([-LARGEST, LARGEST]))

    def fit(self, batch: dict[str, Tensor], target: Tensor) -> None:
        """Take scales from train rows, and first weights that spread their outputs evenly.

        Values that are predicted are held to the range of the targets.
        """
        step = -(-len(target) // FIT_ROWS)
        if self.numbers is not None:
            self.numbers.fit(self._dense(batch))
        if target.is_floating_point():
            self.get_buffer("bounds").copy_(torch.stack([target.min(), target.max()]))
        rows = self._flatten({kind: values[::step] for kind, values in batch.items()})
        for layer in (*self.hidden, self.output):
            if isinstance(layer, Linear):
                layer.fit(rows)
            if not isinstance(layer, Dropout):
                rows = layer(rows)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        scores: Tensor = self.output(self.hidden(self._flatten(batch)))
        if self.training or self.num_outputs > 1:
            return scores
        low, high = self.get_buffer("bounds")
        return torch.minimum(torch.maximum(scores, low), high)

    def _dense(self, batch: dict[str, Tensor]) -> Tensor:
        parts = [batch[kind] for kind in self.dense]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _flatten(self, batch: dict[str, Tensor]) -> Tensor:
        parts = [] if self.numbers is None else [self.numbers(self._dense(batch))]
        tables = iter(self.tables)
        for kind, nums in self.codes.items():
            for column, num in enumerate(nums):
                codes = batch[kind][:, column]
                if num - 1 > MAX_ONE_HOT:
                    shown = next(tables)(codes) * EMBEDDING_RATE
                else:
                    shown = nn.functional.one_hot(codes, num)[:, 1:].float()
                parts.append(self.by_column(shown, kind, [column]))
        parts += [bag(batch[kind]) for kind, bag in self.bags.items()]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return rows * (1 + SCALE_RATE * self.scale)


def _width(num_codes: int) -> int:
    return EMBEDDING if num_codes - 1 > MAX_ONE_HOT else num_codes - 1


class Numbers(nn.Module):
    """Each number as four: itself, and three mixtures of waves of it: (rows, columns * 4).

    It is scaled by the quartiles of the train rows and bent smoothly into ±3 before.
    """

    WIDTH = 4

    def __init__(self, num_columns: int, arguments: Arguments) -> None:
        super().__init__()
        register_constant(self, "median", torch.zeros(num_columns))
        register_constant(self, "factor", torch.ones(num_columns))
        count, mixed = arguments.frequencies, self.WIDTH - 1
        shape = num_columns, count
        waves = torch.randn(shape) * arguments.sigma
        shifts = (torch.rand(shape) * 2 - 1) * math.pi
        bound = 1 / math.sqrt(count)
        mix = (torch.rand(num_columns, count, mixed) * 2 - 1) * bound
        bias = (torch.rand(num_columns, mixed) * 2 - 1) * bound
        self.waves, self.shifts, self.mix, self.bias = (
            nn.Parameter(each / EMBEDDING_RATE) for each in (waves, shifts, mix, bias)
        )

    def fit(self, rows: Tensor) -> None:
        """Take medians and quartiles of `rows` (rows, columns)."""
        ordered = rows.T.sort(dim=1).values
        ordered = torch.stack([join_near(column) for column in ordered], dim=1)
        last = len(rows) - 1
        low, middle, high = (ordered[round(last * share)] for share in (0.25, 0.5, 0.75))
        whole = ordered[-1] - ordered[0]
        factor = torch.where(high > low, 1 / (high - low), 2 / whole)
        self.get_buffer("median").copy_(middle)
        self.get_buffer("factor").copy_(torch.where(whole > 0, factor, 0.0))

    def forward(self, rows: Tensor) -> Tensor:
        """Embed `rows` (rows, columns)."""
        scaled = (rows - self.get_buffer("median")) * self.get_buffer("factor")
        bent = (scaled / (1 + (scaled / 3).square()).sqrt())[:, :, None]
        waves = bent * (self.waves * EMBEDDING_RATE) + self.shifts * EMBEDDING_RATE
        mixed = torch.einsum("rcf,cfm->rcm", waves.cos(), self.mix * EMBEDDING_RATE)
        return torch.cat([mixed + self.bias * EMBEDDING_RATE, bent], dim=2).flatten(1)


class Linear(nn.Module):
    """A linear layer whose weights are all of size one: divided by the root of the inputs' number.

    (The neural tangent parametrisation; Jacot, Gabriel, Hongler, NeurIPS 2018.)
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(before, after))
        self.bias = nn.Parameter(torch.randn(after) / BIAS_RATE)

    def fit(self, rows: Tensor) -> None:
        """Give each output a deviation of one over `rows`, and its zero a place among them."""
        products = rows @ self.weight / math.sqrt(self.weight.shape[0])
        deviation = products.std(dim=0, correction=0)
        self.weight.div_(torch.where(deviation > 0, deviation, 1.0))
        products = rows @ self.weight / math.sqrt(self.weight.shape[0])
        chosen = products[torch.randint(len(rows), (5,))]
        shares = torch.empty(5, products.shape[1]).exponential_().to(products.device)
        self.bias.copy_(-(chosen * shares / shares.sum(dim=0)).sum(dim=0) / BIAS_RATE)

    def forward(self, rows: Tensor) -> Tensor:
        """Products of `rows` (rows, before): (rows, after)."""
        scaled = self.weight / math.sqrt(self.weight.shape[0])
        return rows @ scaled + BIAS_RATE * self.bias


class Activation(nn.Module):
    """An activation that each unit may take more or less of: x + (f(x) - x) * slope."""

    def __init__(self, width: int, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.slope = nn.Parameter(torch.zeros(width))

    def forward(self, rows: Tensor) -> Tensor:
        """Apply it to `rows` (rows, width)."""
        return rows + (self.function(rows) - rows) * (1 + SLOPE_RATE * self.slope)
