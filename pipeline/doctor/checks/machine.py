"""The machine: Python, cores, memory, disks, shared memory, limits of a process, the clock."""

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipeline.doctor.finding import Finding, Options, note, ok, wrong
from pipeline.doctor.places import cache_folder
from stages.common.yamlfile import read_yaml

AREA = "machine"
OLDEST_PYTHON = (3, 11)
MB, GB = 10**6, 10**9
# Below the first something will fail, below the second it may.
MEMORY = (300 * MB, 1 * GB)
DISK = (200 * MB, 2 * GB)
SHARED = 512 * MB
FILES = (256, 1024)
# A clock that is behind makes files that are from the future.
CLOCK_SECONDS = 120.0
SHM = Path("/dev/shm")  # noqa: S108  # it is looked at, and nothing is written there
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
MEMORY_USED = Path("/sys/fs/cgroup/memory.current")


def check(_options: Options) -> Iterator[Finding]:
    """Yield what a stage could run short of."""
    yield from check_python()
    yield from check_cores(os.cpu_count() or 1, allowed_cores())
    yield from check_memory(free_memory())
    for folder in dict.fromkeys([Path(), cache_folder(), Path(tempfile.gettempdir())]):
        yield from check_disk(folder)
    if SHM.is_dir():
        yield from check_shared(shutil.disk_usage(SHM).free, needs_shared_memory())
    yield from check_limits()
    yield from check_clock(time.time())


def check_python() -> Iterator[Finding]:
    """Yield the version, and whether it is that of the project's own environment."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        yield wrong(
            f"Python {version}",
            "the project needs 3.11 or newer",
            "rm -r .venv && make PYTHON=/path/to/python3.11 setup",
        )
    else:
        yield ok(f"Python {version}")


def check_cores(num_cores: int, allowed: float) -> Iterator[Finding]:
    """Yield the cores, and a note where fewer may be used than are seen."""
    if allowed < num_cores:
        least = max(1, int(allowed))
        yield note(
            f"{num_cores} cores are seen, {allowed:g} may be used (a container's or a job's limit)",
            "a training of large steps takes one thread for each core that it sees: they then wait "
            "for each other",
            f"export REPRISE_THREADS={least}",
        )
    else:
        yield ok(f"{num_cores} cores")


def allowed_cores() -> float:
    """The cores that this process may use, by its affinity and its control group."""
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else 1e9
    try:
        quota, period = CPU_QUOTA.read_text(encoding="utf-8").split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        return cores


def free_memory() -> int:
    """The bytes of memory that can still be had, by the machine and by the control group."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int(MEMORY_LIMIT.read_text(encoding="utf-8"))
        return min(free, limit - int(MEMORY_USED.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return free


def check_memory(free: int) -> Iterator[Finding]:
    """Yield the free memory. Importing torch and polars alone takes some 400 MB."""
    if free >= MEMORY[1]:
        yield ok(f"{free / GB:.1f} GB of memory free")
        return
    make = wrong if free < MEMORY[0] else note
    yield make(
        f"only {free / MB:.0f} MB of memory free",
        "a stage takes several hundred; the system kills a process that it has no memory for",
        "ps aux --sort=-rss | head -5   # who has it",
    )


def check_disk(folder: Path) -> Iterator[Finding]:
    """Yield the free space where `folder` lies, or would lie."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    name = str(folder) if str(folder) != "." else "this folder"
    if not os.access(there, os.W_OK):
        yield wrong(
            f"{there} can't be written", "stages write there", f"chown -R {os.geteuid()} {there}"
        )
        return
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    if found.f_files and not found.f_favail:
        why = "no file can be made, whatever space is left"
        yield wrong(f"the disk of {name} has no inodes left", why, f"df -i {there}")
    elif free < DISK[1]:
        make = wrong if free < DISK[0] else note
        yield make(
            f"only {free / MB:.0f} MB free on the disk of {name}",
            "outputs are written there beside the last ones, which go only when all are there",
            "reprise gc   # shows first what of the cache nothing needs any more",
        )
    else:
        yield ok(f"{free / GB:.0f} GB free on the disk of {name}")


def check_shared(free: int, needed: str) -> Iterator[Finding]:
    """Yield the space of `/dev/shm`, through which processes hand batches to each other."""
    if free >= SHARED:
        yield ok(f"{free / GB:.1f} GB free in {SHM}")
        return
    make = wrong if needed else note
    yield make(
        f"only {free / MB:.0f} MB free in {SHM}",
        f"{needed or 'workers of a dataset and several processes'} hand batches over there; one "
        "that finds no room is killed with 'Bus error'",
        "docker run --shm-size=2g …   # Kubernetes: an emptyDir of medium Memory at /dev/shm",
        "or train.dataset.num_workers: 0",
    )


def needs_shared_memory() -> str:
    """The part of `params.yaml` that hands batches between processes, in words; '' if none."""
    dataset = (read_yaml(Path("params.yaml")).get("train") or {}).get("dataset") or {}
    num_workers = dataset.get("num_workers") if isinstance(dataset, dict) else 0
    return f"the {num_workers} workers of train.dataset" if num_workers else ""


def check_limits() -> Iterator[Finding]:
    """Yield the limits of a process that have met somebody before."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < FILES[1]:
        make = wrong if files < FILES[0] else note
        enough = 4096 if most == resource.RLIM_INFINITY else min(4096, most)
        yield make(
            f"a process may open {files} files",
            "torch opens hundreds at its import, and workers some for each batch",
            f"ulimit -n {enough}",
        )
    else:
        yield ok("files that may be open: enough")
    for name, what in (("FSIZE", "a file's size"), ("AS", "a process's address space")):
        limit = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[0]
        if limit != resource.RLIM_INFINITY:
            option = "f" if name == "FSIZE" else "v"
            why = "what is larger fails as if the disk or the memory were full"
            yield note(f"{what} is limited to {limit / MB:.0f} MB", why, f"ulimit -{option} hard")


def check_clock(now: float) -> Iterator[Finding]:
    """Yield whether the clock is behind what the project's own files say."""
    files = [Path(name) for name in ("dvc.lock", "params.yaml", ".git/index", ".git/HEAD")]
    newest = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
    if newest > now + CLOCK_SECONDS:
        hours = (newest - now) / 3600
        yield wrong(
            f"the clock is behind: there are files from {hours:.1f} hours ahead",
            "schedules fire at the wrong time, and servers refuse certificates and signed requests",
            "timedatectl set-ntp true   # or: date -s '…'",
        )
    else:
        yield ok("the clock is not behind")
