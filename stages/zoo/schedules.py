"""Schedules of our own, beside torch's; the class's name is the name in `params.yaml`."""

import math

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class warmup_cosine(LRScheduler):  # noqa: N801  # as `params.yaml` names it
    """The learning rate rises in a line to `optimizer.lr`, then falls along half a cosine.

    It moves with every step. The rise takes the share `warmup` of `total_steps`; at the end is
    `final` times the highest rate. (Loshchilov and Hutter, ICLR 2017, after the warm-up of Goyal
    et al., 2017.) Raises ValueError for shares outside of 0 to 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: float = 0.05,
        final: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if not (0 <= warmup < 1 and 0 <= final <= 1):
            raise ValueError(
                f"warmup_cosine takes warmup from 0 to below 1 and final from 0 to 1, "
                f"not {warmup:g} and {final:g}"
            )
        self.total_steps = total_steps
        self.warmup_steps = round(warmup * total_steps)
        self.final = final
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group of weights at step `last_epoch`, from 0."""
        done, rise = self.last_epoch, self.warmup_steps
        if done < rise:
            factor = (done + 1) / rise
        else:
            way = min(1.0, (done - rise) / max(1, self.total_steps - 1 - rise))
            factor = self.final + (1 - self.final) * (1 + math.cos(math.pi * way)) / 2
        return [rate * factor for rate in self.base_lrs]
