"""The step of the optimizer of each member of a pack, on rows of matrices.

A row is updated with the settings that the member's optimizer has at this step, as its schedule
has set them. Neighbouring rows with equal settings are one call of torch's own kernel, as of
replicas and folds. Short rows with settings of their own, as of trials, are updated all at once, by
the same formulas on columns of settings: a call for each would take longer than the step.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from stages.training.packed.layout import Stacked

# The optimizers of which a pack knows the step, and the numbers that each keeps of a weight.
NUM_MOMENTS: dict[type[Optimizer], int] = {Adam: 2, AdamW: 2, SGD: 1}
# Rows of up to so many weights, in so many runs or more, are updated by columns.
SHORT, MANY_RUNS = 8192, 3
_ADAM = ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay")
_SGD = ("lr", "momentum", "dampening", "weight_decay", "nesterov")


def make_moments(optimizer: Optimizer, weights: Stacked) -> list[Stacked]:
    """The numbers that the optimizers of a pack keep, before their first step."""
    return [[torch.zeros_like(m) for m in weights] for _ in range(NUM_MOMENTS[type(optimizer)])]


@torch.no_grad()
def apply_gradients(
    optimizers: Sequence[Optimizer],
    rows: Sequence[int],
    weights: Stacked,
    gradients: Stacked,
    moments: Sequence[Stacked],
    counts: list[int],
) -> None:
    """Take a step of the optimizers of `rows`, ascending, in place.

    `optimizers` and `counts`, the steps that each has applied, are those of all rows of `weights`
    and `moments`; `gradients` have the given rows alone.
    """
    for row in rows:
        counts[row] += 1
    adam = isinstance(optimizers[0], Adam)
    names, update = (_ADAM, _update_adam) if adam else (_SGD, _update_sgd)
    by_columns = _adam_by_columns if adam else _sgd_by_columns
    for number, (matrix, gradient) in enumerate(zip(weights, gradients, strict=True)):
        groups = [optimizer.param_groups[number] for optimizer in optimizers]
        settings = [(counts[row], *[groups[row][name] for name in names]) for row in rows]
        runs = list(_runs(rows, settings))
        tensors = (matrix.detach(), *(each[number] for each in moments))
        whole = len(rows) == len(matrix)
        if whole and len(runs) == 1:
            update(tensors[0], gradient, tensors[1:], *settings[0])
            continue
        if whole and len(runs) >= MANY_RUNS and matrix.shape[1] <= SHORT:
            by_columns(tensors[0], gradient, tensors[1:], settings)
            continue
        parts = [_divide(each, rows, runs) for each in tensors]
        gradient_parts = torch.split_with_sizes(gradient, [run.stop - run.start for run in runs])
        for run, own, *kept in zip(runs, gradient_parts, *parts, strict=True):
            update(kept[0], own, kept[1:], *settings[run.start])


def _runs(rows: Sequence[int], settings: Sequence[tuple[Any, ...]]) -> Iterator[slice]:
    """Yield the parts of `rows` that follow one another and have equal settings."""
    start = 0
    for place in range(1, len(rows) + 1):
        if (
            place == len(rows)
            or rows[place] != rows[place - 1] + 1
            or settings[place] != settings[start]
        ):
            yield slice(start, place)
            start = place


def _divide(matrix: Tensor, rows: Sequence[int], runs: Sequence[slice]) -> Sequence[Tensor]:
    """The rows of each run, as views."""
    if len(rows) == len(matrix):
        # One call: a slice for each run takes as long as the step itself.
        return torch.split_with_sizes(matrix, [run.stop - run.start for run in runs])
    return [matrix[rows[run.start] : rows[run.stop - 1] + 1] for run in runs]


def _update_adam(
    weights: Tensor,
    gradient: Tensor,
    moments: Sequence[Tensor],
    count: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decoupled: bool,  # noqa: FBT001  # as the group has it
) -> None:
    step = torch._fused_adamw_ if decoupled else torch._fused_adam_
    step(
        [weights],
        [gradient],
        [moments[0]],
        [moments[1]],
        [],
        [torch.tensor(float(count))],
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )


def _update_sgd(
    weights: Tensor,
    gradient: Tensor,
    moments: Sequence[Tensor],
    count: int,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,  # noqa: FBT001  # as the group has it
) -> None:
    torch._fused_sgd_(
        [weights],
        [gradient],
        [moments[0]] if momentum else [],
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=dampening,
        nesterov=nesterov,
        maximize=False,
        is_first_step=count == 1,
    )


def _columns(settings: Sequence[Sequence[float]], like: Tensor) -> list[Tensor]:
    """Each of some settings of all rows as a column (rows, 1)."""
    found = torch.tensor(settings, dtype=torch.float64).to(like.dtype)
    return list(found.T[:, :, None])


def _adam_by_columns(
    weights: Tensor,
    gradient: Tensor,
    moments: Sequence[Tensor],
    settings: Sequence[tuple[Any, ...]],
) -> None:
    columns = [
        (
            lr / (1 - first**count),
            1 - first,
            1 - second,
            1 / math.sqrt(1 - second**count),
            eps,
            0.0 if decoupled else decay,
            1 - lr * decay if decoupled else 1.0,
        )
        for count, lr, (first, second), eps, decay, decoupled in settings
    ]
    rate, to_first, to_second, bias, eps, added, kept = _columns(columns, weights)
    if any(column[5] for column in columns):
        gradient = torch.addcmul(gradient, weights, added)
    moments[0].lerp_(gradient, to_first)
    moments[1].lerp_(gradient.square(), to_second)
    size = moments[1].sqrt().mul_(bias).add_(eps)
    weights.mul_(kept).addcdiv_(moments[0] * rate, size, value=-1)


def _sgd_by_columns(
    weights: Tensor,
    gradient: Tensor,
    moments: Sequence[Tensor],
    settings: Sequence[tuple[Any, ...]],
) -> None:
    columns = [
        (lr, momentum, 1.0 if count == 1 or not momentum else 1 - dampening, decay)
        for count, lr, momentum, dampening, decay, _ in settings
    ]
    rate, momentum, share, decay = _columns(columns, weights)
    gradient = torch.addcmul(gradient, weights, decay)
    moments[0].mul_(momentum).addcmul_(gradient, share)
    # All members are alike in it.
    nesterov = settings[0][-1]
    step = torch.addcmul(gradient, moments[0], momentum) if nesterov else moments[0]
    weights.sub_(step * rate)
