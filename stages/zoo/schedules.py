"""Schedules of the project's own, beside torch's; the class's name is the name in `params.yaml`.

A class here is an `LRScheduler`. It moves with every epoch, or with every step if it says
`moves_by_step = True`. What it keeps is in its `state_dict`, as torch's have it, or no checkpoint
would hold it. `total_steps` (the steps of the training) and `T_max` (its epochs) are filled in
where they are left out. An argument's bounds stand in its type: the check and editors know them.
"""

import math
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class warmup_cosine(LRScheduler):  # noqa: N801  # as `params.yaml` names it
    """The learning rate rises in a line to `optimizer.lr`, then falls along half a cosine.

    The rise takes the share `warmup` of `total_steps`; at the end is `final` times the highest
    rate. (Loshchilov and Hutter, ICLR 2017, after the warm-up of Goyal et al., 2017.)
    """

    moves_by_step: ClassVar = True

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05,
        final: Annotated[float, Field(ge=0, le=1)] = 0.0,
        last_epoch: int = -1,
    ) -> None:
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


class coslog4(LRScheduler):  # noqa: N801  # as `params.yaml` names it
    """Four cosines from 0 to `optimizer.lr` and back to 0, each twice as long as the one before.

    At the share t of `total_steps` it is (1 - cos(2π log2(1 + 15 t))) / 2 of the highest rate: the
    training may settle four times, and has most of its steps for the last (Holzmüller et al.,
    'Better by Default', NeurIPS 2024).
    """

    moves_by_step: ClassVar = True

    def __init__(self, optimizer: Optimizer, total_steps: int, last_epoch: int = -1) -> None:
        self.total_steps = total_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group of weights at step `last_epoch`, from 0."""
        share = min(1.0, self.last_epoch / self.total_steps)
        factor = (1 - math.cos(2 * math.pi * math.log2(1 + 15 * share))) / 2
        return [rate * factor for rate in self.base_lrs]


class flat_cos(LRScheduler):  # noqa: N801  # as `params.yaml` names it
    """The learning rate stays at `optimizer.lr`, then falls along half a cosine to 0.

    It stays for the share `flat` of `total_steps`.
    """

    moves_by_step: ClassVar = True

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        flat: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        last_epoch: int = -1,
    ) -> None:
        self.total_steps = total_steps
        self.flat = flat
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group of weights at step `last_epoch`, from 0."""
        share = min(1.0, self.last_epoch / self.total_steps)
        way = max(0.0, (share - self.flat) / (1 - self.flat))
        factor = (1 + math.cos(math.pi * way)) / 2
        return [rate * factor for rate in self.base_lrs]
