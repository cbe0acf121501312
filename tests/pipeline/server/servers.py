"""Servers that `reprise up` starts: their processes, a free port, waiting for them."""

import socket
import subprocess
import time
from collections.abc import Callable

import psutil

from pipeline.server.services import MARK
from tests.conftest import Project, project_environment

WAIT_SECONDS = 60.0


def of(project: Project) -> list[psutil.Process]:
    """The processes that `reprise up` has started in a project, and their children."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK, "")
            if mark.endswith(f":{project.path.resolve()}") and process.status() != "zombie":
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not what():
        assert time.monotonic() < until
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["reprise", "up", *arguments],
        cwd=project.path,
        env=project_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
