"""The losses of all members of a pack at once, each the mean over its own rows.

A loss that is known here is computed for all members together, with each member's own numbers
(label smoothing, class weights, the bend of a Huber loss); any other one member by member.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from stages.training.optim.class_weights import WeightedLoss
from stages.training.step.loss_of_scores import compute_loss

# The losses of each row, (members, rows, …), of scores, target and a number of each member's own.
ByRow = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PackedLoss:
    """The losses of the members of a pack.

    `by_row` None: each of `loss_fns` is asked. `numbers` (members,) are what the members may differ
    in, `class_weights` (members, classes).
    """

    loss_fns: tuple[nn.Module, ...]
    by_row: ByRow | None
    numbers: Tensor
    class_weights: Tensor | None

    def __call__(self, scores: Tensor, target: Tensor, row_weights: Tensor | None) -> Tensor:
        """The loss of each member, (members,).

        Of scores (members, rows) or (members, rows, classes), with one dimension more behind the
        rows for the members that a model has itself; target and `row_weights` (members, rows).
        """
        if self.by_row is None:
            weights = [None] * len(scores) if row_weights is None else row_weights
            alone = zip(self.loss_fns, scores, target, weights, strict=True)
            return torch.stack([compute_loss(*each) for each in alone])
        inner = scores.ndim - target.ndim - (0 if target.is_floating_point() else 1)
        if inner:
            target = target[:, :, None].expand(-1, -1, scores.shape[2])
        numbers = self.numbers.to(scores.dtype).reshape(-1, *[1] * (target.ndim - 1))
        losses = self.by_row(scores, target, numbers)
        if self.class_weights is not None:
            losses = losses * self.class_weights.gather(1, target.flatten(1)).view_as(target)
        if row_weights is not None:
            losses = losses * (row_weights[:, :, None] if inner else row_weights)
        return losses.flatten(1).mean(dim=1)

    def take(self, rows: Sequence[int]) -> "PackedLoss":
        """Those of some members."""
        numbers = torch.tensor(rows)
        weights = None if self.class_weights is None else self.class_weights[numbers]
        fns = tuple(self.loss_fns[row] for row in rows)
        return replace(self, loss_fns=fns, numbers=self.numbers[numbers], class_weights=weights)


def pack_losses(loss_fns: Sequence[nn.Module]) -> PackedLoss:
    """The losses of `loss_fns`, one of each member, as one."""
    plain = [fn.loss_fn if isinstance(fn, WeightedLoss) else fn for fn in loss_fns]
    weights = [fn.class_weights if isinstance(fn, WeightedLoss) else None for fn in loss_fns]
    known = _KNOWN.get(type(plain[0]))
    alike = len({type(fn) for fn in plain}) == 1 and len({w is None for w in weights}) == 1
    if known is None or not alike:
        return PackedLoss(tuple(loss_fns), None, torch.zeros(len(loss_fns)), None)
    by_row, name = known
    values = [float(getattr(fn, name)) if name else 0.0 for fn in plain]
    numbers = torch.tensor(values, dtype=torch.float64)
    found = [weight for weight in weights if weight is not None]
    return PackedLoss(tuple(loss_fns), by_row, numbers, torch.stack(found) if found else None)


def _cross_entropy(scores: Tensor, target: Tensor, smoothing: Tensor) -> Tensor:
    # With the rows last torch takes eight of them at once, which is many times as fast.
    logs = scores.flatten(1, -2).transpose(1, 2).contiguous().log_softmax(dim=1)
    losses = -logs.gather(1, target.flatten(1)[:, None])[:, 0].view_as(target)
    if not smoothing.any():
        return losses
    return (1 - smoothing) * losses - smoothing * logs.mean(dim=1).view_as(target)


def _mse(scores: Tensor, target: Tensor, _: Tensor) -> Tensor:
    return (scores - target).square()


def _l1(scores: Tensor, target: Tensor, _: Tensor) -> Tensor:
    return (scores - target).abs()


def _smooth_l1(scores: Tensor, target: Tensor, beta: Tensor) -> Tensor:
    away = (scores - target).abs()
    # Where beta is 0 no error lies below it; the other branch must not divide by it.
    bent = away.square() / (2 * torch.where(beta > 0, beta, 1.0))
    return torch.where(away < beta, bent, away - beta / 2)


def _huber(scores: Tensor, target: Tensor, delta: Tensor) -> Tensor:
    away = (scores - target).abs()
    return torch.where(away <= delta, away.square() / 2, delta * (away - delta / 2))


# The function of each, and the name of the number that members may differ in.
_KNOWN: dict[type, tuple[ByRow, str]] = {
    nn.CrossEntropyLoss: (_cross_entropy, "label_smoothing"),
    nn.MSELoss: (_mse, ""),
    nn.L1Loss: (_l1, ""),
    nn.SmoothL1Loss: (_smooth_l1, "beta"),
    nn.HuberLoss: (_huber, "delta"),
}
