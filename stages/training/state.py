"""The state of a training: its data, the result of each epoch, and the position in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stages.features.schema import Class, Moments, TargetTransform
from stages.training.data.source import Source
from stages.training.optim.monitored_metric import metric_of


@dataclass(frozen=True)
class Data:
    """The data of a training: both splits and the target.

    `deviation` turns a standardised error into units. `classes` are in the order of their codes;
    none of them for regression. `columns` are the numeric ones, in their order in a batch, and
    `mean` that of the target, as standardised. `words` are those of each column of texts, in the
    order of their codes. `transform` is what the target was made by before it was standardised.
    """

    train: Source
    validation: Source
    task: str
    deviation: float = 1.0
    classes: Sequence[Class] = ()
    columns: Mapping[str, Moments] = field(default_factory=dict)
    mean: float = 0.0
    words: Sequence[Sequence[str]] = ()
    transform: TargetTransform | None = None

    @property
    def metric(self) -> str:
        """The validation metric that is reported beside the loss."""
        return metric_of(self.task)

    @property
    def scale(self) -> Moments:
        """The scale of the target."""
        return Moments(mean=self.mean, deviation=self.deviation, transform=self.transform)


@dataclass(frozen=True)
class Epoch:
    """One row of `history.csv`. `metric` is accuracy, or RMSE in the target's units.

    `skipped_steps` were not applied, because their loss or gradient was not finite; the
    means are over the others. `logged` has the means over all steps of what the objective logs.
    """

    epoch: int
    learning_rate: float
    gradient_norm: float
    train_loss: float
    validation_loss: float
    metric: float
    skipped_steps: int = 0
    logged: dict[str, float] = field(default_factory=dict)


@dataclass
class Result:
    """The history so far, and the epoch whose weights are kept: the best one, or the last.

    `micro_batch_size` is what was asked for, or as much of it as the memory held.
    """

    history: list[Epoch] = field(default_factory=list)
    best_epoch: Epoch | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    micro_batch_size: int | None = None


# What of `EpochTotals` a device adds up itself.
ON_DEVICE = ("loss", "norm", "rows", "steps_applied", "consecutive_skips")


@dataclass
class EpochTotals:
    """The sums of this process over the steps of the epoch so far.

    Numbers on a CPU. On another device scalar tensors, so that no step waits for it to read them.
    """

    num_steps: int = 0
    # The learning rate that the epoch began with.
    learning_rate: float = math.nan
    loss: float | Tensor = 0.0
    norm: float | Tensor = 0.0
    # Rows and steps that count: those of steps that were applied.
    rows: float | Tensor = 0
    steps_applied: float | Tensor = 0
    # Steps in a row that were skipped; the count continues over the end of an epoch.
    consecutive_skips: int | Tensor = 0
    # The sums over steps of what the objective logs, and the number of these steps.
    logged: dict[str, float | Tensor] = field(default_factory=dict)
    steps_logged: int = 0

    def note(self, logged: Mapping[str, Tensor]) -> None:
        """Add this process's part of what the objective logs in a step, once for each step."""
        if self.steps_logged > self.num_steps:
            # Of the evaluations of a closure the first counts, as for the loss.
            return
        self.steps_logged = self.num_steps + 1
        for name, value in logged.items():
            self.logged[name] = self.logged.get(name, 0.0) + value.double()

    def add_step(self, loss: float, norm: float, num_rows: float) -> None:
        """Add a step that was applied, on a CPU.

        `loss * num_rows` is this process's part of the sum of the batch's losses.
        """
        self.loss += loss * num_rows
        self.norm += norm
        self.rows += num_rows
        self.steps_applied += 1
        self.consecutive_skips = 0

    def to(self, device: torch.device) -> "EpochTotals":
        """The same, with tensors on `device` for all numbers that it adds up itself."""
        for name in ON_DEVICE:
            value = getattr(self, name)
            if not isinstance(value, Tensor):
                dtype = torch.int64 if name == "consecutive_skips" else torch.float64
                setattr(self, name, torch.full((), value, dtype=dtype, device=device))
        return self


@dataclass
class State:
    """All that the next step depends on, beside the recipe and the data: what a checkpoint holds.

    `average` follows the weights (`train.ema`, or `train.swa` from its first epoch on) and is what
    is then validated and kept. `scaler` has the factor on losses in float16.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler
    average: nn.Module | None = None
    result: Result = field(default_factory=Result)
    totals: EpochTotals = field(default_factory=EpochTotals)
    scaler: GradScaler | None = None
