"""Settings of the machine, which are no parameters of the result: device, processes, threads.

    REPRISE_DEVICE=cpu      the device; else a GPU when there is one
    PET_NPROC_PER_NODE=2    the processes, as torchrun reads it; else one a GPU
    PET_NNODES=2            the machines; PET_RDZV_ENDPOINT=host:port is where they meet
    REPRISE_THREADS=4       the threads of a process; else chosen by the rule below
    REPRISE_AT_ONCE=2       the trainings side by side, each in a process; 1: one after the other
    REPRISE_DATA=mapped     where the data lie: see `data/memmap.py`

The thread count decides in which order sums are taken, and so the last bits: it follows from
sizes alone, never from a stopwatch.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from stages.common.errors import UserError
from stages.training.device.device import _device_name
from stages.training.device.distributed import World

# Below this many weight-times-row products a step, a second thread costs more than it brings;
# `benchmarks/threads.py` measures it.
SMALL_STEP = 20_000_000


def num_processes() -> int:
    """The number of processes that train on this machine. Raises UserError for a wrong number."""
    value = os.environ.get("PET_NPROC_PER_NODE")
    if value is None or value in ("gpu", "auto"):
        gpus = torch.cuda.device_count() if _device_name() == "cuda" else 0
        return max(1, gpus)
    if not value.isdigit() or int(value) < 1:
        raise UserError(f"PET_NPROC_PER_NODE is '{value}': it must be a whole number, 1 or more")
    return int(value)


def read_at_once() -> int | None:
    """The trainings side by side that `REPRISE_AT_ONCE` asks for; None: it asks for nothing.

    Raises UserError for a wrong number.
    """
    value = os.environ.get("REPRISE_AT_ONCE")
    if value is not None and (not value.isdigit() or int(value) < 1):
        raise UserError(f"REPRISE_AT_ONCE is '{value}': it must be a whole number, 1 or more")
    return None if value is None else int(value)


def num_nodes() -> int:
    """The number of machines that train together.

    Raises UserError for a wrong number and no meeting place.

    Not from one to another number: the processes decide in which order sums are taken.
    """
    value = os.environ.get("PET_NNODES", "1")
    least, _, most = value.partition(":")
    if not least.isdigit() or int(least) < 1 or most not in ("", least):
        raise UserError(f"PET_NNODES is '{value}': it must be a whole number, 1 or more")
    if int(least) > 1 and not {"PET_RDZV_ENDPOINT", "PET_MASTER_ADDR"} & os.environ.keys():
        message = f"PET_NNODES is {least}, and nothing says where the machines meet: set"
        raise UserError(f"{message} PET_RDZV_ENDPOINT to the host:port of one of them, on each")
    return int(least)


def memory_of(device: torch.device) -> int:
    """The bytes that a device has in all; of a CPU's, what the control groups allow."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *_limits()])


def num_cores(system: Path = Path("/")) -> int:
    """The cores that this process may use: a container may have a share of them, by a quota."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    for text in _read_groups("cpu.max", "", "", system):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.isdigit():
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _limits(system: Path = Path("/")) -> Iterator[int]:
    """The limits of memory of this process's control group and of those above it."""
    for text in _read_groups("memory.max", "memory", "memory.limit_in_bytes", system):
        if text.isdigit():
            yield int(text)


def _read_groups(name: str, controller: str, old_name: str, system: Path) -> Iterator[str]:
    """A file of this process's control group and of those above it, of either version.

    `old_name` is its name in the first version, where each `controller` has a folder of its own.
    """
    own = system / "proc/self/cgroup"
    for line in own.read_text(encoding="utf-8").splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, file_name = system / "sys/fs/cgroup", name
        elif controller in controllers.split(","):
            root, file_name = system / "sys/fs/cgroup" / controller, old_name
        else:
            continue
        for group in (Path(path), *Path(path).parents):
            file = root / group.relative_to("/") / file_name
            if file.is_file():
                yield file.read_text(encoding="utf-8").strip()


def choose_threads(num_weights: int, batch_size: int, world: World) -> str:
    """Set the threads of this process by the rule above; return the choice in words."""
    threads, why = num_threads(num_weights, batch_size, world)
    torch.set_num_threads(threads)
    return f"threads: {threads} ({why})"


def num_threads(num_weights: int, batch_size: int, world: World) -> tuple[int, str]:
    """The number of threads of a process that trains, and the reason.

    Raises UserError for a wrong number.
    """
    value = os.environ.get("REPRISE_THREADS")
    if value is not None:
        if not value.isdigit() or int(value) < 1:
            raise UserError(f"REPRISE_THREADS is '{value}': it must be a whole number, 1 or more")
        return int(value), "REPRISE_THREADS"
    if num_weights * batch_size < SMALL_STEP:
        return 1, f"a step of {num_weights * batch_size / 1e6:.1f}M products is small"
    return max(1, (os.cpu_count() or 1) // world.local_size), "all cores"


def compute_deterministically(*, deterministic: bool = True) -> None:
    """Ask torch for algorithms that give the same bits every time (`train.deterministic`)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
