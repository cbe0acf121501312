"""Starts a Prefect server for the tests and ends it when the pytest process is gone.

`python -m tests.support.watched_server PID FOLDER`: the address is written to FOLDER/url once the
server answers, what it says goes to FOLDER/server.log. It lives no longer than process PID, however
that ends. Its database is a PostgreSQL of its own where one is installed: several workers' tests at
once let SQLite say that it is locked.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from pathlib import Path

import psutil

from tests.support.postgres import find_binaries, serve

START_SECONDS = 90
POLL_SECONDS = 0.2
STOP_SECONDS = 10
PR_SET_PDEATHSIG = 1
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # By default a schedule is looked at each 5 to 60 seconds, and a cancelled run each 20.
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "2",
    # An event is stored within so many seconds; by default 5.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.5",
}


def main() -> None:
    """Serve until the process with the given id has ended."""
    watched, folder = psutil.Process(int(sys.argv[1])), Path(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    binaries = find_binaries()
    with serve(binaries) if binaries else nullcontext() as postgres:
        database = (
            f"postgresql+asyncpg{postgres.url.removeprefix('postgresql')}" if postgres else None
        )
        _serve(watched, folder, database)


def _serve(watched: psutil.Process, folder: Path, database: str | None) -> None:
    for _ in range(3):  # another process may take the port between finding and using it
        port = free_port()
        server = start(port, folder, database)
        try:
            if not answers(server, port, watched):
                continue
            url = folder / "url.writing"
            url.write_text(f"http://127.0.0.1:{port}/api")
            url.rename(folder / "url")
            # An equal id with another start time is not the same process: psutil compares both.
            while watched.is_running() and server.poll() is None:
                time.sleep(POLL_SECONDS)
            return
        finally:
            stop(server)


def free_port() -> int:
    """A port of the loopback interface that nothing uses now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(port: int, folder: Path, database: str | None) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    url = f"http://127.0.0.1:{port}/api"
    environment |= SETTINGS | {"PREFECT_HOME": str(folder / "home"), "PREFECT_API_URL": url}
    if database is not None:
        environment["PREFECT_API_DATABASE_CONNECTION_URL"] = database
    command = [sys.executable, "-m", "prefect", "--no-prompt", "server", "start"]
    libc = ctypes.CDLL(None)
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Should this process be killed itself.
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )


def answers(server: subprocess.Popen[bytes], port: int, watched: psutil.Process) -> bool:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None and watched.is_running():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_SECONDS)
    return False


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(STOP_SECONDS)


if __name__ == "__main__":
    main()
