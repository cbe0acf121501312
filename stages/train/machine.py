"""What belongs to the machine, not to the result's parameters: device, processes, threads.

    REPRISE_DEVICE=cpu      the device; else a GPU when there is one
    PET_NPROC_PER_NODE=2    the processes, as torchrun reads it; else one a GPU
    PET_NNODES=2            the machines; PET_RDZV_ENDPOINT=host:port is where they meet
    REPRISE_THREADS=4       the threads of a process; else chosen by the rule below
    REPRISE_DATA=mapped     where the data lie: see `mapped.py`
    REPRISE_CUDA_GRAPHS=on  whether a GPU plays steps from a recording: see `graphs.py`

The thread count decides in which order sums are taken, and so the last bits: it follows from
sizes alone, never from a stopwatch.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stages.common.errors import UserError

# Below this many weight-times-row products a step, a second thread costs more than it brings;
# `benchmarks/threads.py` measures it.
SMALL_STEP = 20_000_000


@dataclass(frozen=True)
class World:
    """The processes that train together on one or more machines, and which of them this is."""

    rank: int = 0
    size: int = 1
    num_nodes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the first process of its machine: the one that speaks and writes."""
        return self.rank % self.local_size == 0

    @property
    def local_size(self) -> int:
        """How many of the processes are on each machine."""
        return self.size // self.num_nodes

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def spread(self, values: Tensor) -> None:
        """Give all processes the `values` of the first one, in place."""
        if self.size > 1:
            dist.broadcast(values, 0)

    def largest(self, numbers: list[int]) -> list[int]:
        """Number by number the largest that any process has given."""
        if self.size == 1:
            return numbers
        values = torch.tensor(numbers, device=choose_device())
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return [int(value) for value in values.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """What every process has given, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, make: Callable[[], Any], source: int = 0) -> Any:
        """What `make` gives in the process `source`, in all of them."""
        if self.size == 1:
            return make()
        values = [make() if self.rank == source else None]
        dist.broadcast_object_list(values, src=source)
        return values[0]

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            dist.barrier()


def num_processes() -> int:
    """How many processes this machine trains with. Raises UserError for a wrong number."""
    asked = os.environ.get("PET_NPROC_PER_NODE")
    if asked is None or asked in ("gpu", "auto"):
        gpus = torch.cuda.device_count() if _device_name() == "cuda" else 0
        return max(1, gpus)
    if not asked.isdigit() or int(asked) < 1:
        raise UserError(f"PET_NPROC_PER_NODE is '{asked}': it must be a whole number, 1 or more")
    return int(asked)


def num_nodes() -> int:
    """How many machines train together. Raises UserError for a wrong number and no meeting place.

    Not from one to another number: the processes decide in which order sums are taken.
    """
    asked = os.environ.get("PET_NNODES", "1")
    least, _, most = asked.partition(":")
    if not least.isdigit() or int(least) < 1 or most not in ("", least):
        raise UserError(f"PET_NNODES is '{asked}': it must be a whole number, 1 or more")
    if int(least) > 1 and not {"PET_RDZV_ENDPOINT", "PET_MASTER_ADDR"} & os.environ.keys():
        message = f"PET_NNODES is {least}, and nothing says where the machines meet: set"
        raise UserError(f"{message} PET_RDZV_ENDPOINT to the host:port of one of them, on each")
    return int(least)


def device_kind() -> str:
    """'cpu', 'cuda', …: what the processes of this machine train on."""
    return _device_name().partition(":")[0]


def _device_name() -> str:
    return os.environ.get("REPRISE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def choose_device() -> torch.device:
    """The device of this process. Raises UserError when `REPRISE_DEVICE` is none."""
    name = _device_name()
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        # Read back: the device 'meta' takes tensors, but holds no numbers.
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"REPRISE_DEVICE is '{name}', which can't be used: {reason}") from None
    return device


def memory_of(device: torch.device) -> int:
    """The bytes that a device has in all; of a CPU's, what the control groups allow us."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *_limits()])


def _limits(system: Path = Path("/")) -> Iterator[int]:
    """The limits of our control group and of those above it, of either version."""
    ours = system / "proc/self/cgroup"
    for line in ours.read_text(encoding="utf-8").splitlines() if ours.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = system / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            root, name = system / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        for group in (Path(path), *Path(path).parents):
            file = root / group.relative_to("/") / name
            if file.is_file() and (text := file.read_text(encoding="utf-8").strip()).isdigit():
                yield int(text)


def choose_threads(num_weights: int, batch_size: int, world: World) -> str:
    """Set the threads of this process by the rule above; return the choice in words."""
    threads, why = num_threads(num_weights, batch_size, world)
    torch.set_num_threads(threads)
    return f"threads: {threads} ({why})"


def num_threads(num_weights: int, batch_size: int, world: World) -> tuple[int, str]:
    """How many threads a process trains with, and why. Raises UserError for a wrong number."""
    asked = os.environ.get("REPRISE_THREADS")
    if asked is not None:
        if not asked.isdigit() or int(asked) < 1:
            raise UserError(f"REPRISE_THREADS is '{asked}': it must be a whole number, 1 or more")
        return int(asked), "REPRISE_THREADS"
    if num_weights * batch_size < SMALL_STEP:
        return 1, f"a step of {num_weights * batch_size / 1e6:.1f}M products is small"
    return max(1, (os.cpu_count() or 1) // world.local_size), "all cores"


def compute_deterministically(*, asked: bool = True) -> None:
    """Ask torch for algorithms that give the same bits every time (`train.deterministic`)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(asked)
