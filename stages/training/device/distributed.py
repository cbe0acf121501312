"""The processes that train together, and what they tell each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stages.training.device.device import choose_device


@dataclass(frozen=True)
class World:
    """The processes that train together on one or more machines, and which of them this is."""

    rank: int = 0
    size: int = 1
    num_nodes: int = 1

    @property
    def is_local_main_process(self) -> bool:
        """Check for the first process of its machine, which prints and writes."""
        return self.rank % self.local_size == 0

    @property
    def local_size(self) -> int:
        """The number of processes on each machine."""
        return self.size // self.num_nodes

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """`values` summed over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def broadcast(self, values: Tensor) -> None:
        """Give all processes the `values` of the first one, in place."""
        if self.size > 1:
            dist.broadcast(values, 0)

    def all_reduce_max(self, numbers: list[int]) -> list[int]:
        """Number by number the largest that any process has given."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, device=choose_device())
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return [int(value) for value in values.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast_object(self, make: Callable[[], Any], source: int = 0) -> Any:
        """The result of `make` in the process `source`, in all of them."""
        if self.size == 1:
            return make()
        values = [make() if self.rank == source else None]
        dist.broadcast_object_list(values, src=source)
        return values[0]

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            dist.barrier()
