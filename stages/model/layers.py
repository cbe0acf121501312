"""Layers that models of the zoo are made of, and the error of one that can't take the data."""

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from stages.common.errors import Problem, UserError
from stages.features.schema import CODES, WORDS
from stages.model.dropout import Dropout
from stages.model.term_frequency import count_times, dampen, length_of

# The attribute of a module that names its constant buffers.
CONSTANTS = "constant_names"
# The numbers that a text becomes where a model doesn't say otherwise.
TEXT_WIDTH = 64
# Of the first numbers of a word.
INITIAL_DEVIATION = 0.1
# An unfitted layer has the bins of a standard normal distribution between these.
LIMIT = 2.5
# Values no further apart than this share of their size, or of their column's deviation, are one: a
# few of float32's spacings, of which rounding alone decides.
NEAR = 4 * torch.finfo(torch.float32).eps
# The buffers that hold the bins: for each column their lower edges and one over their widths
# (bins,), the normal score of the lowest edge, and what each bin adds to it (bins,).
BINS = ("lows", "factors", "first_score", "steps")


def wrong_inputs(name: str, takes: str, inputs: Collection[str]) -> UserError:
    """The error of a model that takes other columns than `inputs` has, with those that take them.

    `name` is that of its file, with which the message begins; `takes` goes on.
    """
    fitting: tuple[str, ...] = ("tabm", "realmlp")
    if "image" in inputs:
        fitting = ("resnet", "cnn") if len(inputs) == 1 else ("mixed",)
    elif "text" in inputs:
        fitting = ("ngrams", "transformer", *fitting)
    message = f"{name} {takes}, and the data holds {', '.join(inputs)}"
    return UserError(Problem(message, "build.model.name", name, (*fitting, "linear", "mlp")))


def register_constant(
    module: nn.Module, name: str, values: Tensor, *, persistent: bool = True
) -> None:
    """Register a buffer that no step moves, such as bins: steps need not keep a copy of it.

    `persistent`: it is in the model's file; else it follows from the arguments.
    """
    module.register_buffer(name, values, persistent=persistent)
    setattr(module, CONSTANTS, (*getattr(module, CONSTANTS, ()), name))


class ByColumn(nn.Module):
    """Gives numbers back as they are, and tells an explanation of which columns' codes they are.

    No line leads from a code to another one. So where a model makes numbers of codes it passes them
    through this layer, and `attribute` takes the numbers on their way from those of no code to
    those of the row's.
    """

    def forward(self, values: Tensor, kind: str, columns: list[int]) -> Tensor:  # noqa: ARG002
        """Return `values` (rows, …), made of some columns of `kind`: their places there.

        Each of `columns` has the same share of a row's numbers, one behind the other.
        """
        return values


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
        self.by_column = ByColumn()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Concatenate what the batch holds, in the order of the schema's kinds."""
        parts = [batch[kind].flatten(1) for kind in self.dense]
        for kind, nums in self.num_codes.items():
            for column, num_codes in enumerate(nums):
                codes = batch[kind][:, column]
                shown = nn.functional.one_hot(codes, num_codes)[:, 1:].float()
                parts.append(self.by_column(shown, kind, [column]))
        parts += [bag(batch[kind]) for kind, bag in zip(self.words, self.bags, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class TextBag(nn.Module):
    """Of each text column `width` numbers: (rows, columns * width) float32, whatever the order.

    Each word has as many of its own, of which the sum is taken, with weights whose squares add up
    to 1; a word that stands n times counts 1 + ln(n). A word weighs the more the rarer it is: codes
    go by how many train rows have the word, and that falls as 1/rank (Zipf), so that the logarithm
    of the rank is the inverse document frequency except for a constant. `shape` is that of
    `Schema.inputs`.
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
        self.by_column = ByColumn()

    def forward(self, codes: Tensor) -> Tensor:
        """Take codes (rows, places), of which 0 is none."""
        parts, start = [], 0
        for column, (table, length) in enumerate(zip(self.tables, self.lengths, strict=True)):
            own = codes[:, start : start + length]
            times = count_times(own)
            weights = self.get_buffer(f"weights{column}")[own] * dampen(times)
            size = length_of(weights, times).clamp(min=1.0)
            words = torch.bmm((weights / size)[:, None], table(own))[:, 0]
            parts.append(self.by_column(words, "text", [column]))
            start += length
        return torch.cat(parts, dim=1)


def _weights(num_codes: int) -> Tensor:
    """Of no word 0, of one that train lacks 1, and then 2 + ln(rank)."""
    ranks = torch.arange(1, num_codes - 1, dtype=torch.float32)
    return torch.cat([torch.tensor([0.0, 1.0]), 2 + ranks.log()])


class FrozenNorm(nn.Module):
    """A batch norm that keeps the mean and variance of its pretraining, (rows, channels, …).

    So a row is not scored by the others of its batch; scale and shift learn.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = nn.Parameter(torch.ones(norm.num_features))
        self.bias = nn.Parameter(torch.zeros(norm.num_features))
        register_constant(self, "running_mean", torch.zeros(norm.num_features))
        register_constant(self, "running_var", torch.ones(norm.num_features))

    def forward(self, values: Tensor) -> Tensor:
        """Scale and shift each channel."""
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return values * scale[:, None, None] + shift[:, None, None]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention (rows, places, heads, width) of queries and others (rows, heads, places, width).

    The form is that of transformers. The layer `drawn` of `module` drops the shares.
    """
    if dropout == 0:
        found = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling
        )
        return found.transpose(1, 2), None
    weights = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        weights = torch.where(attention_mask, weights, torch.finfo(weights.dtype).min)
    elif attention_mask is not None:
        weights = weights + attention_mask
    drawn = module.get_submodule("drawn")
    assert isinstance(drawn, Dropout)
    drawn.p = dropout
    shares: Tensor = drawn(weights.softmax(dim=-1))
    return (shares @ value).transpose(1, 2), None


class PiecewiseLinear(nn.Module):
    """Each number of a row as `width` numbers: (rows, columns * width), smooth between the bins.

    A number is first written as the share of each bin that lies below it, [1, …, 1, share, 0, …],
    of which all that follows is linear: its rank as a normal score, and a weight for each bin that
    starts at zero. So a number beyond the train rows counts as the last one there. (Gorishniy,
    Rubachev, Babenko: On embeddings for numerical features, NeurIPS 2022, with the bins' version B
    of TabM.)
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
                # With a storage of its own: torch.export would save, and warn of, all of `scores`.
                value = value.clone(memory_format=torch.contiguous_format)
                register_constant(self, name, value)

    def fit(self, rows: Tensor) -> None:
        """Take as edges the quantiles of `rows` (rows, columns)."""
        num_edges = self.weight.shape[1] + 1
        ordered = rows.T.contiguous().sort(dim=1).values
        ordered = torch.stack([join_near(column) for column in ordered])
        edges = torch.stack([find_edges(column, num_edges) for column in ordered])
        below = torch.searchsorted(ordered, edges)
        above = torch.searchsorted(ordered, edges, right=True)
        # The share of rows below a value, those equal to it by half.
        scores = torch.special.ndtri((below + above).double() / (2 * len(rows))).float()
        self.place_bins(edges, scores)

    def forward(self, rows: Tensor) -> Tensor:
        """Embed `rows` (rows, columns)."""
        return self.embed(rows).flatten(1)

    def embed(self, rows: Tensor) -> Tensor:
        """The embedding of each column of `rows` (rows, columns): (rows, columns, width)."""
        lows, factors, first_score, steps = map(self.get_buffer, BINS)
        shares = ((rows[:, :, None] - lows) * factors).clamp(0, 1)
        weight = self.weight + steps[:, :, None] * self.slope[:, None]
        bias = self.bias + first_score[:, None] * self.slope
        embedded: Tensor = torch.einsum("rcb,cbw->rcw", shares, weight) + bias
        return embedded


def join_near(ordered: Tensor) -> Tensor:
    """Sorted values (rows,), of which those that only rounding leaves apart (NEAR) are one.

    A bin between such two would be a step. Values that lie close by the hundred, as those of a
    column with a value far beyond all others do, stay as they are.
    """
    values, places = torch.unique_consecutive(ordered, return_inverse=True)
    near = NEAR * torch.maximum(values.abs().double(), ordered.double().std(correction=0))
    apart = values.diff() > near[1:]
    if apart.all():
        return ordered
    groups = torch.cat([apart.new_zeros(1), apart]).cumsum(dim=0)
    starts = values[torch.searchsorted(groups, groups)]
    ends = values[torch.searchsorted(groups, groups, right=True) - 1]
    return torch.where(ends - starts <= near, starts, values)[places]


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
