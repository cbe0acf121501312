"""A straight line through the train rows, fitted before the first step, for models to begin with.

Ridge regression for values, logistic regression for classes. The strength of the penalty and the
columns that count are chosen by cross-validation within the train rows, which knows no groups, no
order and no weights of rows. It takes seconds, also where the columns are more than the rows and
steps of an optimizer would learn noise.
"""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from stages.features.schema import WORDS
from stages.model.layers import Flatten, register_constant

NUM_FOLDS = 5
# Of many rows a fit takes some, evenly spaced: as many as have so many numbers together, counted
# for each output, and no fewer than the first.
MIN_ROWS, MAX_NUMBERS = 1_000, 500_000
# Penalties beside the largest variance of the rows, from strong to weak.
SQUARES_PENALTIES = tuple(10.0 ** (quarter / 4) for quarter in range(4, -37, -1))
ENTROPY_PENALTIES = tuple(10.0**power for power in range(0, -6, -1))
# Rounds in which columns that count little are made smaller; fewer if one was no better.
MAX_ROUNDS = 6
MAX_STEPS, TOLERANCE = 60, 1e-3
# A direction with less of the largest variance is rounding.
RANK = 1e-14
# The least size of a column beside the largest.
MIN_SIZE = 1e-6
# A number may be beyond those of the train rows by so much of their range.
MARGIN = 0.5

# The weight (columns, outputs) and the bias (outputs,) of a line.
Weights = tuple[Tensor, Tensor]


class Line(nn.Module):
    """scores = W x + b of all columns but texts: zero until `fit`, after which no step moves it.

    A number far beyond those of the train rows counts as one that is half their range beyond.
    """

    def __init__(self, inputs: dict[str, list[int]], num_outputs: int) -> None:
        super().__init__()
        self.flatten = Flatten({kind: s for kind, s in inputs.items() if kind not in WORDS})
        width, largest = self.flatten.width, torch.finfo(torch.float32).max
        register_constant(self, "low", torch.full((width,), -largest))
        register_constant(self, "high", torch.full((width,), largest))
        register_constant(self, "weight", torch.zeros(num_outputs, width))
        register_constant(self, "bias", torch.zeros(num_outputs))

    def fit(self, batch: dict[str, Tensor], target: Tensor) -> float:
        """Fit it to train rows: by squares to values (rows,), by cross entropy to codes (rows,).

        Returns the share of the variance of values, or of the cross entropy of the classes' shares,
        that the line takes away from rows that were held out.
        """
        num_outputs = len(self.get_buffer("bias"))
        most = max(MIN_ROWS, MAX_NUMBERS // max(1, self.flatten.width * num_outputs))
        places = torch.linspace(0, len(target) - 1, min(len(target), most), dtype=torch.float64)
        chosen = places.round().long().to(target.device)
        rows = self.flatten({kind: values[chosen] for kind, values in batch.items()}).cpu()
        target = target[chosen].cpu()
        # Rows of one's own code may hold others, which no step learns from either.
        finite = rows.isfinite().all(dim=1) & target.isfinite()
        rows, target = rows[finite], target[finite]
        if not rows.numel():
            return 0.0
        lowest, highest = rows.amin(dim=0), rows.amax(dim=0)
        margin = (highest - lowest) * MARGIN
        self.get_buffer("low").copy_(lowest - margin)
        self.get_buffer("high").copy_(highest + margin)
        (weight, bias), explained = fit_line(rows.double(), target, num_outputs)
        self.get_buffer("weight").copy_(weight.T)
        self.get_buffer("bias").copy_(bias)
        return explained

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores (rows, num_outputs)."""
        rows = self.flatten(batch).clamp(self.get_buffer("low"), self.get_buffer("high"))
        # In half precision columns that go together would lose what sets them apart.
        with torch.autocast(rows.device.type, enabled=False):
            return nn.functional.linear(rows, self.get_buffer("weight"), self.get_buffer("bias"))


def fit_line(rows: Tensor, target: Tensor, num_outputs: int) -> tuple[Weights, float]:
    """The line with the least error on held-out rows, and the share of the error that it takes.

    `rows` (rows, columns) are float64; values in `target` are float, codes of classes int64.

    The first round shrinks all columns alike. In each round after it a column is scaled by the size
    of its weights in the one before, so that the penalty falls on columns that counted little: many
    are as good as left out, as the lasso does. The round that is best for held-out rows counts.
    (Grandvalet: Least absolute shrinkage is equivalent to quadratic penalization, ICANN 1998.)
    """
    mean, deviation = rows.mean(dim=0), rows.std(dim=0, correction=0)
    factor = torch.where(deviation > 0, 1 / deviation, 0.0)
    rows = (rows - mean) * factor
    is_classes = not target.is_floating_point()
    if is_classes:
        wanted = nn.functional.one_hot(target, num_outputs).double()
    else:
        wanted = target.double()[:, None].expand(-1, num_outputs)
    # Each fold has rows of all classes, or low and high values. The last is all rows.
    fold = torch.empty_like(target, dtype=torch.long)
    fold[target.argsort(stable=True)] = torch.arange(len(target)) % NUM_FOLDS
    learned = [fold != number for number in range(NUM_FOLDS)] + [fold >= 0]
    sizes = [torch.ones_like(mean) for _ in learned]
    constant = _constant(wanted, is_classes=is_classes)
    without = least = _error(constant.expand_as(wanted), wanted, is_classes=is_classes)
    best = torch.zeros(rows.shape[1], num_outputs, dtype=rows.dtype), constant
    # Of a single row none can be held out.
    for _ in range(MAX_ROUNDS if len(target) > 1 else 0):
        paths = [
            RegularizationPath(rows[own], wanted[own], size, is_classes=is_classes)
            for own, size in zip(learned, sizes, strict=True)
        ]
        error, lines = _choose_penalty(paths, rows, wanted, learned)
        if not error < least:
            break
        least, best = error, lines[-1]
        sizes = [_sizes_of(weight) for weight, _ in lines]
    weight, bias = best
    weight = weight * factor[:, None]
    return (weight, bias - mean @ weight), 1 - least / without if without > 0 else 0.0


def _sizes_of(weight: Tensor) -> Tensor:
    """The size (columns,) of each column's weights beside the largest."""
    sizes: Tensor = weight.norm(dim=1)
    return torch.clamp(sizes / sizes.max().clamp(min=torch.finfo(sizes.dtype).tiny), min=MIN_SIZE)


def _choose_penalty(
    paths: Sequence["RegularizationPath"], rows: Tensor, wanted: Tensor, learned: Sequence[Tensor]
) -> tuple[float, list[Weights]]:
    """The error on held-out rows at the best penalty, and the line of each of `paths` there."""
    is_classes = paths[0].is_classes
    least, best = float("inf"), []
    for penalty in ENTROPY_PENALTIES if is_classes else SQUARES_PENALTIES:
        lines = [path.solve(penalty) for path in paths]
        error = 0.0
        for (weight, bias), own in zip(lines[:-1], learned[:-1], strict=True):
            error += _error(rows[~own] @ weight + bias, wanted[~own], is_classes=is_classes)
        if error < least:
            least, best = error, lines
    return least, best


def _constant(wanted: Tensor, *, is_classes: bool) -> Tensor:
    """The scores (outputs,) without any column: the mean, or the classes' shares as logarithms."""
    means = wanted.mean(dim=0)
    # A class that these rows lack may still come.
    return (means + 1 / len(wanted)).log() if is_classes else means


def _error(scores: Tensor, wanted: Tensor, *, is_classes: bool) -> float:
    """The sum over rows of squares, or of the cross entropy."""
    if is_classes:
        return -float((scores.log_softmax(dim=1) * wanted).sum())
    return float((scores - wanted).square().sum())


@final
class RegularizationPath:
    """Lines through some rows, with one penalty after the other, each from the line before."""

    def __init__(self, rows: Tensor, wanted: Tensor, sizes: Tensor, *, is_classes: bool) -> None:
        self.is_classes, self.wanted, self.sizes = is_classes, wanted, sizes
        scaled = rows * sizes
        self.mean = scaled.mean(dim=0)
        scaled = scaled - self.mean
        # In the directions of the rows' variance each weight is found by itself.
        is_tall = scaled.shape[1] <= len(scaled)
        products = scaled.T @ scaled if is_tall else scaled @ scaled.T
        variances, vectors = torch.linalg.eigh(products)
        kept = variances > variances[-1:] * RANK
        self.variances, vectors = variances[kept], vectors[:, kept]
        self.directions = vectors if is_tall else scaled.T @ (vectors / self.variances.sqrt())
        self.scores = scaled @ self.directions
        self.bias = _constant(wanted, is_classes=is_classes)
        self.weight = torch.zeros(len(self.variances), wanted.shape[1], dtype=rows.dtype)

    def solve(self, penalty: float) -> Weights:
        """The line with a penalty on its weights, beside the largest variance."""
        penalty = penalty * float(self.variances.max()) if len(self.variances) else 1.0
        if self.is_classes:
            self._step_down(penalty)
        else:
            products = self.scores.T @ (self.wanted - self.bias)
            self.weight = products / (self.variances + penalty)[:, None]
        weight = self.directions @ self.weight
        return self.sizes[:, None] * weight, self.bias - self.mean @ weight

    def _step_down(self, penalty: float) -> None:
        """Step to the bottom of a parabola above the cross entropy, again and again.

        (Böhning: Multinomial logistic regression algorithm, 1992; with Nesterov's momentum, which
        starts anew where a step goes back: O'Donoghue, Candès, 2015.)
        """
        curvature, roots = (self.variances / 2 + penalty)[:, None], self.variances.sqrt()[:, None]
        ahead, bias_ahead, momentum = self.weight, self.bias, 1.0
        for _ in range(MAX_STEPS):
            left = self.wanted - (self.scores @ ahead + bias_ahead).softmax(dim=1)
            weight = ahead + (self.scores.T @ left - penalty * ahead) / curvature
            bias = bias_ahead + 2 * left.mean(dim=0)
            moved, bias_moved = weight - self.weight, bias - self.bias
            goes_back = ((ahead - weight) * moved).sum() > 0
            following = 1.0 if goes_back else (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            share = 0.0 if goes_back else (momentum - 1) / following
            ahead, bias_ahead = weight + share * moved, bias + share * bias_moved
            self.weight, self.bias, momentum = weight, bias, following
            if (moved * roots).norm() <= TOLERANCE * (weight * roots).norm():
                break
