"""Processes that outlive the command which starts them: started, recorded, found again.

`.reprise/up.json` records each with its start time, so that a process which has got the same id
since is never taken for it. Each also carries `REPRISE_UP=NAME:FOLDER` in its environment, and
so do its children: what a killed `reprise up` has started and not yet recorded is found by that.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pipeline.common.atomic import write_whole
from pipeline.common.ports import HOST
from pipeline.common.processes import find_by_id
from stages.common.errors import UserError
from stages.locks import hold

HOME = Path(".reprise")
STATE = HOME / "up.json"
LOCK = HOME / "up.lock"
LOGS = HOME / "logs"
MARK = "REPRISE_UP"
POLL_SECONDS = 0.2
LOCK_SECONDS = 150
NUM_LINES_SHOWN = 15


@dataclass(frozen=True)
class ServiceProcess:
    """One running service: its process, and where it is to be reached."""

    name: str
    pid: int
    # Seconds since the epoch at which the process began.
    started: float
    port: int | None = None
    address: str | None = None


def log_file(name: str) -> Path:
    """The file that a service's output goes to."""
    return LOGS / f"{name}.log"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one command at a time start or end services of this folder; others wait.

    Raises UserError when the folder can't be written, or another command takes too long.
    """
    try:
        HOME.mkdir(exist_ok=True)
        file = hold(LOCK, wait_seconds=LOCK_SECONDS)
    except OSError as error:
        raise UserError(f"cannot write under {HOME}: {error.strerror or error}") from None
    if file is None:
        raise UserError("another 'reprise up' or 'reprise down' of this folder does not end")
    with file:
        yield


def read_records() -> dict[str, ServiceProcess]:
    """The services in `.reprise/up.json`, by name; none when it is not there or damaged.

    What a damaged one would have named is still found by its mark.
    """
    try:
        content = json.loads(STATE.read_text(encoding="utf-8"))
        return {entry["name"]: ServiceProcess(**entry) for entry in content["services"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_alive() -> dict[str, ServiceProcess]:
    """The recorded services whose processes run."""
    return {name: s for name, s in read_records().items() if find_process(s) is not None}


def write_records(services: Mapping[str, ServiceProcess]) -> None:
    """Record `services`, whole or not at all; none: remove the file.

    Raises UserError when the file can't be written.
    """
    try:
        if not services:
            STATE.unlink(missing_ok=True)
            return
        content = {"services": [asdict(service) for service in services.values()]}
        write_whole(STATE, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {STATE}: {error.strerror or error}") from None


def find_process(service: ServiceProcess) -> psutil.Process | None:
    """The service's process if it runs, and not another that has got its id."""
    return find_by_id(service.pid, service.started)


def launch(
    name: str, command: Sequence[str], environment: Mapping[str, str], port: int | None = None
) -> ServiceProcess:
    """Start a service in a session of its own; its output goes to its log.

    Raises UserError when it can't be started.
    """
    log = log_file(name)
    try:
        LOGS.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".before.log"))
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**environment, MARK: mark_of(name)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        what = error.filename or command[0]
        raise UserError(f"cannot start {name}: {error.strerror or error} {what}") from None
    try:
        started = psutil.Process(process.pid).create_time()
    except psutil.Error:
        started = time.time()
    # It outlives this process, and nobody waits for it.
    process.returncode = 0
    address = None if port is None else f"http://{HOST}:{port}"
    return ServiceProcess(name, process.pid, started, port, address)


def wait_until(service: ServiceProcess, ready: Callable[[], bool], seconds: float) -> None:
    """Wait until `ready()`.

    Raises UserError, with the last lines of its log, when the service ends or takes too long.
    """
    until = time.monotonic() + seconds
    while not ready():
        if find_process(service) is None:
            raise UserError(failed(service.name, "ended at its start"))
        if time.monotonic() > until:
            raise UserError(failed(service.name, f"was not ready after {seconds:.0f} s"))
        time.sleep(POLL_SECONDS)


def failed(name: str, how: str) -> str:
    """A message with the last lines of the service's log."""
    try:
        lines = log_file(name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    shown = [f"  {line}" for line in lines if line.strip()][-NUM_LINES_SHOWN:]
    return "\n".join([f"{name} {how}; the last lines of {log_file(name)}:", *shown])


def mark_of(name: str) -> str:
    """The mark of the service's processes in their environment, with this folder in it."""
    return f"{name}:{Path.cwd().resolve()}"
