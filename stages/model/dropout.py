"""Dropout that neither the number of processes nor the steps before change."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

# An odd number that spreads the steps of an epoch over all seeds (2**64 over the golden ratio).
_SPREAD = 0x9E3779B97F4A7C15


def share_dropout_rng(model: nn.Module, device: torch.device) -> "DropoutRng":
    """Give all `Dropout` layers of `model` one new generator to draw from in a training."""
    dropout_rng = DropoutRng(device)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.apply_rng = dropout_rng.apply
    return dropout_rng


class DropoutRng:
    """Random numbers of a step, such as dropout's masks: for the whole batch, then the local rows.

    They follow from seed, epoch, step and the order of the layers, so neither the number of
    processes nor the steps before change them.
    """

    def __init__(self, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        self._first_seed = 0
        self._step: int | None = None
        self._num_rows = 0
        self._local_rows = slice(None)
        self._step_seed = 0
        self._words: np.random.SFC64 | None = None

    def begin_epoch(self, seed: int, epoch: int) -> None:
        """Fix the seeds of the steps of an epoch."""
        # The last number keeps them apart from those of the order of rows.
        mixed = np.random.SeedSequence([seed, epoch, 1])
        self._first_seed = int(mixed.generate_state(1, np.uint64)[0])

    def begin_step(self, step: int, num_rows: int, local_rows: slice) -> None:
        """Draw for a batch of `num_rows` from here on, of which this process has `local_rows`."""
        # Seeded when the first layer draws: most models of a small step have none.
        self._step = step
        self._num_rows, self._local_rows = num_rows, local_rows

    def end_epoch(self) -> None:
        """Leave dropout to torch until the next step begins."""
        self._num_rows = 0

    def apply(self, values: Tensor, p: float) -> Tensor:
        """`values` (the local rows, …) with a share `p` of them zero and the others scaled up.

        Raises ValueError when the rows of the batch are not the first dimension.
        """
        if self._num_rows == 0:
            return nn.functional.dropout(values, p)
        return values * self.draw_mask(values, p)

    def draw_mask(self, values: Tensor, p: float) -> Tensor:
        """The factors by which `apply` multiplies `values` (the local rows, …).

        Raises ValueError as it does.
        """
        mask, kept = self._draw_kept(values, p)
        mask = mask[self._local_rows]
        if len(mask) != len(values):
            message = f"Dropout takes the batch's {len(mask)} rows first, not {len(values)}"
            raise ValueError(message)
        return mask.to(values.dtype).div_(kept)

    def _draw_kept(self, values: Tensor, p: float) -> tuple[Tensor, float]:
        """Draw the numbers of the whole batch that are kept, and give their probability."""
        if not values.is_cpu:
            mask = self._empty(values, *values.shape[1:])
            return mask.bernoulli_(1 - p, generator=self._generator), 1 - p
        kept = np.empty((self._num_rows, *values.shape[1:]), np.bool_)
        probability = self.draw_kept(kept, p)
        # From bytes torch converts several times as fast.
        return torch.from_numpy(kept.view(np.uint8)), probability

    def draw_kept(self, kept: npt.NDArray[np.bool_], p: float) -> float:
        """Draw on the CPU which numbers of the whole batch are kept; give their probability.

        They are put into `kept` (rows, …), which is contiguous.
        """
        # torch's generator on a CPU takes as long as a layer. NumPy's draws four numbers of 16 bits
        # at once, in a third of the time; the share is then a multiple of 2**-16.
        num_dropped = min(round(p * 2**16), 2**16 - 1)
        self._seed()
        if self._words is None:
            self._words = np.random.SFC64(self._step_seed)
        words = np.asarray(self._words.random_raw(-(-kept.size // 4)), np.uint64)
        drawn = words.view(np.uint16)[: kept.size].reshape(kept.shape)
        np.greater_equal(drawn, num_dropped, out=kept)
        return 1 - num_dropped / 2**16

    def draw_uniform(self, values: Tensor, *shape: int) -> Tensor:
        """Numbers from 0 to 1 for the local rows (rows, *shape), of the type of `values`."""
        return self._empty(values, *shape).uniform_(generator=self._generator)[self._local_rows]

    def draw_normal(self, values: Tensor, *shape: int) -> Tensor:
        """Standard normal numbers for the local rows (rows, *shape), of the type of `values`."""
        return self._empty(values, *shape).normal_(generator=self._generator)[self._local_rows]

    def draw_number(self, values: Tensor) -> Tensor:
        """A number from 0 to 1 for all rows of the batch (scalar), of the type of `values`."""
        self._seed()
        return values.new_empty(()).uniform_(generator=self._generator)

    def _empty(self, values: Tensor, *shape: int) -> Tensor:
        """Room for all rows of the batch."""
        self._seed()
        return values.new_empty(self._num_rows, *shape)

    def _seed(self) -> None:
        """Seed the generator at the first draw of a step."""
        if self._step is not None:
            self._step_seed = (self._first_seed + self._step * _SPREAD) % 2**64
            self._generator.manual_seed(self._step_seed)
            self._words, self._step = None, None


class Dropout(nn.Module):
    """torch's Dropout, but that in a training the number of processes does not change it.

    Of `values` (rows, …) a share `p` becomes zero while training, anew in each step.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.apply_rng: Callable[[Tensor, float], Tensor] | None = None

    def forward(self, values: Tensor) -> Tensor:
        """`values` with some of them zero in training mode, and as they are in evaluation."""
        if not self.training or self.p == 0:
            return values
        if self.apply_rng is None:
            return nn.functional.dropout(values, self.p)
        return self.apply_rng(values, self.p)

    def extra_repr(self) -> str:
        """The text between the brackets when the model is printed."""
        return f"p={self.p}"
