"""Rows that stay on disk: gathered from the memory map, many at once, beside the steps.

What is gathered is converted as data on the device are, so a training has the same bits wherever
its rows lie.

    REPRISE_DATA=mapped     or `device`; else chosen by the rule below, from sizes alone
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stages.common.errors import UserError
from stages.features.schema import APART, Array, Statistics
from stages.tensors.batch import Batch, finish, size_on_device, take, to_target, to_weight
from stages.training.data.source import TensorSource
from stages.training.device.environment import memory_of

# What the model, its gradients and a batch's activations are left.
SHARE_OF_MEMORY = 0.5
# A gather is of as many steps as make so many bytes on the device, one at least. Three are held at
# once: one that is learned from, one that waits, one that is gathered.
GATHER_BYTES = 16_000_000
PLACES = ("device", "mapped")

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mapped:
    """A split on disk, of which the target and the weight alone lie on the device.

    `features` are memory-mapped arrays by kind, rows first.
    """

    features: dict[str, Array]
    statistics: Statistics
    target: Tensor
    keys: Array | None = None
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: Tensor | slice) -> tuple[Batch, Tensor]:
        """Some rows, read now."""
        numbers: slice | Rows = rows if isinstance(rows, slice) else rows.cpu().numpy()
        if not isinstance(rows, slice):
            rows = rows.to(self.target.device)
        # A slice of a memory map is the disk itself, which nobody may write to.
        read = {kind: torch.from_numpy(np.array(array[numbers])) for kind, array in self._arrays()}
        return self._convert(read), self.target[rows]

    def feed(self, steps: Iterable[Tensor], seed: int) -> Iterator[tuple[Batch, Tensor]]:  # noqa: ARG002
        """The rows of each step; a thread gathers those of the next ones. Nothing is drawn."""
        device = self.target.device
        groups = list(self._group(list(steps)))
        with ThreadPoolExecutor(1, "gather") as thread:
            waiting = [thread.submit(self._gather, group) for group in groups[:1]]
            for number, group in enumerate(groups):
                batch, places = waiting.pop().result()
                waiting += [thread.submit(self._gather, g) for g in groups[number + 1 :][:1]]
                if device.type != "cpu":
                    batch, places = self._convert(batch), places.to(device, non_blocking=True)
                target = self.target[torch.cat(group).to(device, non_blocking=True)]
                start = 0
                for rows in group:
                    part = slice(start, start + len(rows))
                    # Taken, not sliced: a batch lies in memory as one of data on the device does.
                    yield take(batch, places[part]), target[part].clone()
                    start = part.stop

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        # As plain arrays: each look into a `memmap` makes another one.
        return ((kind, np.asarray(array)) for kind, array in self.features.items())

    def _group(self, steps: list[Tensor]) -> Iterator[list[Tensor]]:
        """The steps of each gather: one at first, since it is waited for, then twice as many."""
        row_bytes = size_on_device(self.features) / len(self)
        start, size = 0, 1
        while start < len(steps):
            yield steps[start : start + size]
            start += size
            most = GATHER_BYTES / (row_bytes * len(steps[0]))
            size = max(1, min(2 * size, int(most)))

    def _gather(self, group: list[Tensor]) -> tuple[Batch, Tensor]:
        """The rows of a group in the order of the disk; and where among them each step's lie."""
        rows, places = np.unique(torch.cat(group).numpy(), return_inverse=True)
        read = {k: torch.from_numpy(np.take(array, rows, axis=0)) for k, array in self._arrays()}
        positions = torch.from_numpy(places)
        if self.target.device.type == "cpu":
            return self._convert(read), positions
        if self.target.device.type == "cuda":
            # From pinned memory the device fetches by itself; the step does not wait.
            return {k: t.pin_memory() for k, t in read.items()}, positions.pin_memory()
        return read, positions

    def _convert(self, read: Batch) -> Batch:
        """The arrays as tensors on the device; images become standardised float32."""
        batch = {
            kind: t.to(self.target.device, non_blocking=self.target.is_cuda)
            for kind, t in read.items()
        }
        return {kind: finish(kind, t, self.statistics) for kind, t in batch.items()}


def open_split(arrays: dict[str, Array], statistics: Statistics, device: torch.device) -> Mapped:
    """The split whose memory-mapped arrays these are; its target and weight are read."""
    features = {kind: array for kind, array in arrays.items() if kind not in APART}
    target, weight = to_target(arrays, device), to_weight(arrays.get("weight"), device)
    return Mapped(features, statistics, target, arrays["key"], weight)


def read_split(mapped: Mapped) -> TensorSource:
    """All rows on the device, read part by part: little is held beside what stays."""
    num_rows, (first, _) = len(mapped), mapped.take(slice(0, 1))
    size = max(1, int(GATHER_BYTES * num_rows / size_on_device(mapped.features)))
    batch = {
        kind: tensor.new_empty((num_rows, *tensor.shape[1:])) for kind, tensor in first.items()
    }
    for start in range(0, num_rows, size):
        part = slice(start, start + size)
        for kind, tensor in mapped.take(part)[0].items():
            batch[kind][part] = tensor
    return TensorSource(batch, mapped.target, mapped.keys, mapped.weight)


def choose_place(num_bytes: int, device: torch.device, num_sharing: int = 1) -> tuple[str, str]:
    """'device' or 'mapped', and the choice in words.

    `num_bytes` is what all rows take as tensors, in each of the `num_sharing` processes that share
    the memory of the device. Raises UserError when `REPRISE_DATA` is neither.
    """
    total, memory = num_bytes * num_sharing, memory_of(device)
    each = f" in each of {num_sharing} processes" if num_sharing > 1 else ""
    size = f"{_words(num_bytes)}{each}"
    setting = os.environ.get("REPRISE_DATA")
    if setting is not None and setting not in PLACES:
        raise UserError(f"REPRISE_DATA is '{setting}': it must be {' or '.join(PLACES)}")
    place = setting or PLACES[total > SHARE_OF_MEMORY * memory]
    where = f"on {device.type}" if place == "device" else "mapped"
    if setting is not None:
        return place, f"data {where}: {size} (REPRISE_DATA)"
    why = f", more than half of {_words(memory)}" if place == "mapped" else ""
    return place, f"data {where}: {size}{why}"


def _words(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:,.0f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:,.0f} kB"
