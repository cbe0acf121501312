"""Losses of the project's own, beside torch's; the class's name is the name in `params.yaml`.

A class here is called as torch's are, loss(scores, target), and gives the mean over rows (). Its
`task` says what scores it takes: (rows, classes) beside codes (rows,) for 'classification', (rows,)
beside standardised values (rows,) for 'regression'. It keeps nothing from call to call, since no
checkpoint would hold it. For weights of classes or rows it also takes reduction='none', and then
gives the loss of each row (rows,). An argument's bounds stand in its type: the check and editors
know them.
"""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def reduce(losses: Tensor, reduction: str) -> Tensor:
    """The mean () of the losses of rows (rows,); with 'none' these themselves."""
    return losses if reduction == "none" else losses.mean()


class focal(nn.Module):  # noqa: N801  # as `params.yaml` names it
    """Cross-entropy in which rows that are right already count for little, as of a common class.

    A row whose class has the probability p is weighed by (1 - p)^gamma; 0 is cross-entropy itself
    (Lin et al., ICCV 2017).
    """

    task: ClassVar = "classification"

    def __init__(
        self, gamma: Annotated[float, Field(ge=0, le=100)] = 2.0, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.reduction = reduction

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss of `scores` (rows, classes) beside the codes `target` (rows,)."""
        losses: Tensor = FocalLosses.apply(scores, target, self.gamma)  # type: ignore[no-untyped-call]
        return reduce(losses, self.reduction)


class FocalLosses(torch.autograd.Function):
    """The focal losses of rows, with a backward pass by hand: docs/outline.md explains it.

    Of l, the logarithm of the right class's probability p, the loss is -(1 - p)^gamma l, and its
    slope gamma (1 - p)^(gamma - 1) p l - (1 - p)^gamma. Autograd would keep, and go back through,
    each of the steps from l to the loss; here a row keeps its slope alone.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, scores: Tensor, target: Tensor, gamma: float) -> Tensor:
        """The loss of each row (rows,)."""
        logs = scores.log_softmax(dim=1)
        own = logs.gather(1, target[:, None])
        # 1 - p without the digits that the difference loses. At 0 a root has no slope.
        missing = (-own.expm1()).clamp_(min=torch.finfo(scores.dtype).tiny)
        factor = missing**gamma
        slope = gamma * own * own.exp() * factor / missing - factor
        ctx.save_for_backward(logs, target, slope)
        return -(factor * own).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient by the scores (rows, classes), from that by the losses (rows,)."""
        logs, target, slope = ctx.saved_tensors
        by_log = gradient[:, None] * slope
        # The logarithm of one softmax grows with its own score by 1 - p, and with another by -p.
        by_scores = logs.exp().mul_(-by_log).scatter_add_(1, target[:, None], by_log)
        return by_scores, None, None


class quantile(nn.Module):  # noqa: N801  # as `params.yaml` names it
    """The pinball loss: what is learned is the value that a share `q` of the targets lie below.

    A target above the prediction costs q for each unit, one below it 1 - q; 0.5 is half the L1
    loss (Koenker and Bassett, Econometrica 1978).
    """

    task: ClassVar = "regression"

    def __init__(
        self, q: Annotated[float, Field(gt=0, lt=1)] = 0.5, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.q = q
        self.reduction = reduction

    def forward(self, scores: Tensor, target: Tensor) -> Tensor:
        """The loss of `scores` (rows,) beside the values `target` (rows,)."""
        above = target - scores
        return reduce(torch.maximum(self.q * above, (self.q - 1) * above), self.reduction)
