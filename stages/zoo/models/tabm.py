"""An ensemble of small networks that share their weights, on embeddings of numbers: for tables.

TabM-mini with piecewise-linear embeddings (Gorishniy, Kotelnikov, Babenko: TabM, ICLR 2025;
Gorishniy, Rubachev, Babenko: On embeddings for numerical features, NeurIPS 2022).
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.common.errors import Problem, UserError
from stages.features.schema import CODES
from stages.model.dropout import Dropout
from stages.model.layers import Flatten, register_constant

MAX_WIDTH = 1_000_000
# An unfitted model has the bins of a standard normal distribution between these.
LIMIT = 2.5
# The buffers that hold the bins: for each column their lower edges and one over their widths
# (bins,), the normal score of the lowest edge, and what each bin adds to it (bins,).
BINS = ("lows", "factors", "first_score", "steps")


class Arguments(Config):
    """`members` networks of `layers` layers of `width` units, all but a scale for each column and
    their outputs in common. A number becomes `embedding` numbers by way of `bins` bins; `dropout`
    is the share of units set to zero.
    """

    members: Annotated[int, Field(ge=1, le=1000)] = 8
    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 128
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    bins: Annotated[int, Field(ge=1, le=1000)] = 48
    embedding: Annotated[int, Field(ge=1, le=1000)] = 16


class Model(nn.Module):
    """Each member sees the row times a scale of its own for each column, and has its own output.

    In training it gives the scores of each member (rows, members, num_outputs), so that each learns
    by itself; else those of the mean of their probabilities or values.
    """

    def __init__(
        self, arguments: Arguments, inputs: dict[str, list[int]], num_outputs: int
    ) -> None:
        super().__init__()
        if "image" in inputs:
            message = f"tabm takes no images, and the data holds {', '.join(inputs)}"
            allowed = ("linear", "mlp") if len(inputs) > 1 else ("cnn", "linear", "mlp")
            raise UserError(Problem(message, key="build.model.name", value="tabm", allowed=allowed))
        self.members, self.num_outputs = arguments.members, num_outputs
        self.dense = [kind for kind in inputs if kind not in CODES and kind != "text"]
        num_dense = sum(inputs[kind][0] for kind in self.dense)
        others = {kind: shape for kind, shape in inputs.items() if kind not in self.dense}
        self.embedding = (
            Embedding(num_dense, arguments.bins, arguments.embedding) if num_dense else None
        )
        self.others = Flatten(others) if others else None
        columns = _columns(inputs, num_dense, arguments.embedding, self.others)
        register_constant(self, "columns", columns, persistent=False)
        self.scales = nn.Parameter(torch.randn(self.members, int(columns.max()) + 1))
        width = arguments.width
        self.first = nn.Linear(len(columns), width)
        self.dropout = Dropout(arguments.dropout)
        hidden: list[nn.Module] = []
        for _ in range(arguments.layers - 1):
            hidden += [nn.Linear(width, width), nn.ReLU(), Dropout(arguments.dropout)]
        self.hidden = nn.Sequential(*hidden)
        bound = 1 / math.sqrt(width)
        self.output = nn.Parameter(
            torch.empty(self.members, width, num_outputs).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(self.members, num_outputs).uniform_(-bound, bound))

    def fit(self, batch: dict[str, Tensor], target: Tensor) -> None:  # noqa: ARG002
        """Take the bins from the quantiles of train rows."""
        if self.embedding is not None:
            self.embedding.fit(self._dense(batch))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs); in training (rows, members, num_outputs)."""
        parts = [] if self.embedding is None else [self.embedding(self._dense(batch))]
        parts += [] if self.others is None else [self.others(batch)]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        # The scales go into the weights: (rows, members, columns) would be far larger.
        weight = self.first.weight[None] * self.scales[:, None, self.get_buffer("columns")]
        hidden = nn.functional.linear(rows, weight.flatten(0, 1))
        hidden = hidden.reshape(-1, self.members, self.first.out_features) + self.first.bias
        hidden = self.hidden(self.dropout(hidden.relu()))
        scores: Tensor = torch.einsum("rmw,mwo->rmo", hidden, self.output) + self.bias
        if self.training:
            return scores
        if self.num_outputs == 1:
            return scores.mean(dim=1)
        return scores.log_softmax(dim=2).logsumexp(dim=1) - math.log(self.members)

    def _dense(self, batch: dict[str, Tensor]) -> Tensor:
        parts = [batch[kind] for kind in self.dense]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _columns(
    inputs: dict[str, list[int]], num_dense: int, embedding: int, others: Flatten | None
) -> Tensor:
    """The number of the column of which each number of a flat row is."""
    widths = [embedding] * num_dense
    for kind in CODES:
        widths += [num - 1 for num in inputs.get(kind, [])]
    if others is not None:
        widths += [others.text_width] * others.num_texts
    return torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))


class Embedding(nn.Module):
    """Each number of a row as `width` numbers: (rows, columns * width), smooth between the bins.

    A number is first written as the share of each bin that lies below it, [1, …, 1, share, 0, …],
    of which all that follows is linear: its rank as a normal score, and a weight for each bin that
    starts at zero. So a number beyond the train rows counts as the last one there.
    """

    def __init__(self, num_columns: int, bins: int, width: int) -> None:
        super().__init__()
        levels = torch.linspace(-LIMIT, LIMIT, bins + 1)
        edges = levels.expand(num_columns, -1)
        self.place_bins(edges, edges)
        bound = 1 / math.sqrt(width)
        self.slope = nn.Parameter(torch.empty(num_columns, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_columns, width).uniform_(-bound, bound))
        self.weight = nn.Parameter(torch.zeros(num_columns, bins, width))

    def place_bins(self, edges: Tensor, scores: Tensor) -> None:
        """Put bins between `edges` (columns, bins + 1), at which the normal scores are `scores`.

        A bin between equal edges is none.
        """
        widths = edges.diff(dim=1)
        there = widths > 0
        factors = torch.where(there, 1 / widths, 0.0)
        values = edges[:, :-1] * there, factors, scores[:, 0], scores.diff(dim=1) * there
        for name, value in zip(BINS, values, strict=True):
            if name in self._buffers:
                self.get_buffer(name).copy_(value)
            else:
                register_constant(self, name, value.contiguous())

    def fit(self, rows: Tensor) -> None:
        """Take as edges the quantiles of `rows` (rows, columns)."""
        num_edges = self.weight.shape[1] + 1
        ordered = rows.T.contiguous().sort(dim=1).values
        edges = torch.stack([find_edges(column, num_edges) for column in ordered])
        below = torch.searchsorted(ordered, edges)
        above = torch.searchsorted(ordered, edges, right=True)
        # The share of rows below a value, those equal to it by half.
        scores = torch.special.ndtri((below + above).double() / (2 * len(rows))).float()
        self.place_bins(edges, scores)

    def forward(self, rows: Tensor) -> Tensor:
        """Embed `rows` (rows, columns)."""
        lows, factors, first_score, steps = map(self.get_buffer, BINS)
        shares = ((rows[:, :, None] - lows) * factors).clamp(0, 1)
        weight = self.weight + steps[:, :, None] * self.slope[:, None]
        bias = self.bias + first_score[:, None] * self.slope
        embedded = torch.einsum("rcb,cbw->rcw", shares, weight) + bias
        return embedded.flatten(1)


def find_edges(ordered: Tensor, number: int) -> Tensor:
    """Edges between sorted values (rows,): quantiles of the rows, the last repeated if too few.

    Where many rows are equal, edges that are left go to quantiles of the other values: of a column
    that is mostly zero its other values would else share a bin or two.
    """
    places = torch.linspace(0, len(ordered) - 1, number, dtype=torch.float64)
    edges = torch.unique(ordered[places.round().long().to(ordered.device)])
    if left := number - len(edges):
        others = torch.unique(ordered)
        others = others[~torch.isin(others, edges)]
        if len(others) > left:
            places = torch.linspace(0, len(others) - 1, left + 2, dtype=torch.float64)[1:-1]
            others = others[places.round().long().to(others.device)]
        edges = torch.cat([edges, others]).sort().values
    return torch.cat([edges, edges[-1:].expand(number - len(edges))])
