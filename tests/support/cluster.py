"""A cluster of Dask's on this machine: a scheduler and workers, each a process, on 127.0.0.1."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT

SECONDS = 60
DASK = (sys.executable, "-m", "dask")
# It ends by itself where the tests are killed, and its workers with it.
IDLE = ("--idle-timeout", "300s")


@dataclass
class Cluster:
    """A scheduler, and the workers that were started for it, by their names; in a clone `home`."""

    folder: Path
    home: Path = ROOT
    address: str = ""
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    workers: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start_scheduler(self) -> None:
        file = self.folder / "scheduler.json"
        host = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self._start("scheduler", *host, "--scheduler-file", str(file), *IDLE)
        until = time.monotonic() + SECONDS
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
        self.address = json.loads(file.read_text())["address"]

    def start_worker(self, name: str, num_threads: int = 1, **environment: str) -> None:
        """A worker; it may take a while until the scheduler knows it."""
        threads = ("--nthreads", str(num_threads), "--memory-limit", "0")
        alone = (*threads, "--no-nanny", "--no-dashboard")
        here = ("--local-directory", str(self.folder), "--death-timeout", str(SECONDS))
        command = ("worker", self.address, "--name", name, *alone, *here)
        self.workers[name] = self._start(*command, **environment)

    def wait_for(self, number: int) -> None:
        """Wait until the scheduler has so many workers."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            until = time.monotonic() + SECONDS
            while len(client.scheduler_info(n_workers=-1)["workers"]) != number:
                assert time.monotonic() < until, "no such number of workers"
                time.sleep(0.05)

    def end(self, name: str) -> None:
        self.workers[name].kill()
        self.workers.pop(name).wait()

    def _start(self, *command: str, **environment: str) -> "subprocess.Popen[bytes]":
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*DASK, *command],
                cwd=self.home,
                env={**os.environ, "POLARS_MAX_THREADS": "1", **environment},
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process


@contextmanager
def start_cluster(folder: Path, num_workers: int, home: Path = ROOT) -> Iterator[Cluster]:
    """A cluster of the code in `home`, for as long as the block runs."""
    cluster = Cluster(folder, home)
    try:
        cluster.start_scheduler()
        for number in range(num_workers):
            cluster.start_worker(f"worker-{number}")
        cluster.wait_for(num_workers)
        yield cluster
    finally:
        for process in reversed(cluster.processes):
            process.kill()
            process.wait()


def unused_port() -> int:
    """A port of 127.0.0.1 at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
