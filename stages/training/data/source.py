"""The source of a training's rows: the interface that the loop uses, and the one on the device."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stages.features.schema import Array
from stages.tensors.batch import Batch, take


class Source(Protocol):
    """The rows to train or validate on, by their number; what is taken lies on the device.

    `target` and `weight` (rows,) are those of all rows, on the device. `keys` (rows,) name them to
    a person.
    """

    @property
    def target(self) -> Tensor:
        """Class codes (rows,) int64, or standardised values (rows,) float32."""

    @property
    def keys(self) -> Array | None:
        """Names of the rows (rows,)."""

    @property
    def weight(self) -> Tensor | None:
        """The weights of the rows (rows,) float32, of mean 1; None: all count the same."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor | slice) -> tuple[Batch, Tensor]:
        """Some rows as they are judged: features by kind, and the target (rows,)."""

    def feed(self, steps: Iterable[Tensor], seed: int) -> Iterator[tuple[Batch, Tensor]]:
        """An epoch to train on: for each step the rows of this process.

        `seed` is that of the epoch: whatever a source draws for a row follows from it and the
        row's number, so neither the processes nor the steps before change it.
        """


@dataclass(frozen=True)
class TensorSource:
    """Rows that lie on the device: what is taken is a slice by their numbers."""

    batch: Batch
    target: Tensor
    keys: Array | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Tensor | slice) -> tuple[Batch, Tensor]:
        """Some rows of every tensor."""
        if not isinstance(rows, slice):
            rows = rows.to(self.target.device, non_blocking=True)
        return take(self.batch, rows), self.target[rows]

    def feed(self, steps: Iterable[Tensor], seed: int) -> Iterator[tuple[Batch, Tensor]]:  # noqa: ARG002
        """The rows of each step; nothing is drawn."""
        if self.target.is_cpu:
            return map(self.take, steps)
        # All numbers at once: a copy in each step would be one more wait in each.
        numbers = list(steps)
        order = torch.cat(numbers).to(self.target.device) if numbers else torch.empty(0)
        return map(self.take, torch.split(order, [len(rows) for rows in numbers]))


# Of rows that no step learns from, so many go through the model at once at most. It is as many
# for all rows of up to 8192 numbers; of images of 3 x 224 x 224 it is 222.
MAX_ROWS, MAX_NUMBERS = 4096, 2**25


def rows_at_once(source: Source) -> int:
    """The number of rows of `source` that are evaluated at once, by a row's size: on any machine.

    Neither more than `MAX_ROWS` nor more than have `MAX_NUMBERS` numbers in all; one at least.
    """
    batch, _ = source.take(slice(0, 1))
    numbers = sum(values.numel() for values in batch.values())
    return max(1, min(MAX_ROWS, MAX_NUMBERS // max(1, numbers)))
