"""An ensemble of small networks that share their weights, on embeddings of numbers: for tables.

TabM-mini with piecewise-linear embeddings (Gorishniy, Kotelnikov, Babenko: TabM, ICLR 2025;
Gorishniy, Rubachev, Babenko: On embeddings for numerical features, NeurIPS 2022).
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from stages.common.config import Config
from stages.common.errors import Problem, UserError
from stages.features.schema import CODES, WORDS
from stages.model.dropout import Dropout
from stages.model.layers import Flatten, PiecewiseLinear, register_constant, wrong_inputs
from stages.model.line import Line
from stages.model.model import PRETRAINED

MAX_WIDTH = 1_000_000
# Values of a batch up to which the products of each column are kept: width times as many numbers.
MAX_PRODUCTS = 1 << 17
# Where the line explains so much of the variance of values, the mean of members with it and without
# is worse than of those with it.
MOST = 0.75


class Arguments(Config):
    """`members` networks of `layers` layers of `width` units, all but a scale for each column and
    their outputs in common. A number becomes `embedding` numbers by way of `bins` bins; `dropout`
    is the share of units set to zero. `line`: half of the members learn only what a straight line
    leaves, which is fitted to the train rows first, or all where it explains most of a value.
    """

    members: Annotated[int, Field(ge=1, le=1000)] = 8
    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 128
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    bins: Annotated[int, Field(ge=1, le=1000)] = 48
    embedding: Annotated[int, Field(ge=1, le=1000)] = 16
    line: bool = False


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
            raise wrong_inputs("tabm", "takes no images", inputs)
        self.members, self.num_outputs = arguments.members, num_outputs
        self.dense = [kind for kind in inputs if kind not in CODES and kind != "text"]
        num_dense = sum(inputs[kind][0] for kind in self.dense)
        others = {kind: shape for kind, shape in inputs.items() if kind not in self.dense}
        self.embedding = (
            PiecewiseLinear(num_dense, arguments.bins, arguments.embedding) if num_dense else None
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
        self.output = Outputs(self.members, width, num_outputs)
        self.line: Line | None = None
        if arguments.line:
            if set(inputs) <= set(WORDS):
                message = "tabm begins with no line of texts, and the data holds nothing else"
                raise UserError(Problem(message, "build.model.line", "true", ("false",)))
            self.line = Line(inputs, num_outputs)
            register_constant(self, "on_line", torch.zeros(self.members, 1))

    def fit(self, batch: dict[str, Tensor], target: Tensor) -> None:
        """Take the bins from the quantiles of train rows, and the line through these.

        Heads from a file (`build.pretrained`) keep the line that they have learned beside, or none.
        """
        if self.embedding is not None:
            self.embedding.fit(self._dense(batch))
        if self.line is not None and not hasattr(self.output.weight, PRETRAINED):
            explained = self.line.fit(batch, target)
            is_most = target.is_floating_point() and explained >= MOST
            count = self.members if is_most else (self.members + 1) // 2
            self.get_buffer("on_line").copy_((torch.arange(self.members) < count)[:, None])

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs); in training (rows, members, num_outputs)."""
        hidden = self._first_layer(batch) + self.first.bias
        hidden = self.hidden(self.dropout(hidden.relu()))
        scores: Tensor = self.output(hidden)
        if self.line is not None:
            scores = scores + self.line(batch)[:, None] * self.get_buffer("on_line")
        if self.training:
            return scores
        if self.num_outputs == 1:
            return scores.mean(dim=1)
        return scores.log_softmax(dim=2).logsumexp(dim=1) - math.log(self.members)

    def _first_layer(self, batch: dict[str, Tensor]) -> Tensor:
        """Each member's products of its scaled row, without the bias: (rows, members, width)."""
        numbers = None if self.embedding is None else self.embedding.embed(self._dense(batch))
        parts = [] if self.others is None else [self.others(batch)]
        products = None
        if numbers is not None and self.training and numbers[..., 0].numel() <= MAX_PRODUCTS:
            products = self._of_columns(numbers)
        elif numbers is not None:
            parts.insert(0, numbers.flatten(1))
        if parts:
            rows = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            # The scales go into the weights: (rows, members, columns) would be far larger.
            columns = self.get_buffer("columns")[-rows.shape[1] :]
            weight = self.first.weight[None, :, -rows.shape[1] :] * self.scales[:, None, columns]
            scaled = nn.functional.linear(rows.type_as(weight), weight.flatten(0, 1))
            scaled = scaled.reshape(-1, self.members, self.first.out_features)
            products = scaled if products is None else products + scaled
        assert products is not None
        return products

    def _of_columns(self, numbers: Tensor) -> Tensor:
        """The products of `numbers` (rows, columns, embedding): (rows, members, width).

        A member has one scale for a column, so what the weights make of the column is computed
        once, and summed by each member's scales: with 8 members and 16 numbers a column, a fifth
        of the multiplications.
        """
        num_rows, num_columns, embedding = numbers.shape
        width = self.first.out_features
        weight = self.first.weight[:, : num_columns * embedding]
        weight = weight.reshape(width, num_columns, embedding).permute(1, 2, 0)
        of_column = torch.bmm(numbers.transpose(0, 1), weight)
        products = self.scales[:, :num_columns] @ of_column.flatten(1)
        return products.reshape(-1, num_rows, width).transpose(0, 1).contiguous()

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
    return torch.tensor([column for column, width in enumerate(widths) for _ in range(width)])


class Outputs(nn.Module):
    """A linear layer for each member: (rows, members, width) to (rows, members, num_outputs)."""

    def __init__(self, members: int, width: int, num_outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(members, width, num_outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, num_outputs).uniform_(-bound, bound))

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores of each member."""
        if self.training:
            scores: Tensor = _Products.apply(hidden, self.weight)  # type: ignore[no-untyped-call]
        else:
            scores = _multiply(hidden, self.weight)
        return scores + self.bias


class _Products(torch.autograd.Function):
    """`hidden` (rows, members, width) by `weight` (members, width, num_outputs).

    torch's own gradient of `hidden` lies in another order in memory, in which all that comes before
    takes several times as long.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(hidden: Tensor, weight: Tensor) -> Tensor:
        """The products (rows, members, num_outputs)."""
        return _multiply(hidden, weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        """Keep what the gradients need."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of both."""
        # Under autocast the gradient has the type of the products.
        hidden, weight = (each.to(gradient.dtype) for each in ctx.saved_tensors)
        if weight.shape[2] == 1:
            of_hidden = gradient * weight[:, :, 0]
        else:
            of_hidden = _multiply(gradient, weight.transpose(1, 2)).contiguous()
        of_weight = gradient.permute(1, 2, 0) @ hidden.transpose(0, 1)
        return of_hidden, of_weight.transpose(1, 2)


def _multiply(values: Tensor, weight: Tensor) -> Tensor:
    return (weight.transpose(1, 2) @ values.permute(1, 2, 0)).permute(2, 0, 1)
