"""Starts each service of `reprise up`; tells when it is ready, and what may keep it from that."""

import os
import platform
import shutil
import sqlite3
import sys
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pipeline.common.ports import HOST, choose_port
from pipeline.common.programs import python
from pipeline.server.access import (
    CLIENT_AUTH,
    SERVER_AUTH,
    URL,
    ensure_auth,
    past_proxies,
    read_auth,
)
from pipeline.server.guarded_server import origins
from pipeline.server.names import BASE, POOL
from pipeline.server.prefect_api import answers, request
from pipeline.server.services import HOME, ServiceProcess, launch
from pipeline.server.shutdown import end
from stages.common.errors import UserError
from stages.common.telemetry import SWITCHES

SERVER_PORT = 4200
TENSORBOARD_PORT = 6006
TENSORBOARD_FOLDER = Path("data/tensorboard")
PREFECT_FOLDER = HOME / "prefect"
DATABASE = PREFECT_FOLDER / "prefect.db"
CORS = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
NEEDED_MEGABYTES = 50
# In the order in which they end: a run that is stopped still reports to the server. What a
# worker has started may be writing a checkpoint.
GRACE_SECONDS = {"worker": 60.0, "tensorboard": 5.0, "server": 5.0}
SETTINGS = {
    **SWITCHES,
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # A silent run is found by its missing heartbeats (register.py); 30 s is the least.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # By default a run waits up to 10 s before the worker looks.
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    # The environment is that of constraints.txt, never one that is put together for a run.
    "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
}


def launch_server(port: int | None, record: ServiceProcess | None) -> ServiceProcess:
    """Start Prefect's server, where the one of `record` was unless `port` says otherwise.

    Raises UserError when the port is taken or it can't be started.
    """
    # What a killed 'up' has left: nothing else may use this database.
    end("server", record, GRACE_SECONDS["server"])
    chosen = _port(port, record.port if record else None, SERVER_PORT, "--port")
    ensure_auth()
    command = _guarded("prefect", str(chosen))
    return launch("server", command, environment(f"http://{HOST}:{chosen}/api"), chosen)


def launch_worker(url: str, record: ServiceProcess | None) -> ServiceProcess:
    """Start a worker of the work pool. Raises UserError when it can't be started."""
    end("worker", record, GRACE_SECONDS["worker"])
    command = [*python("prefect"), "--no-prompt", "worker", "start", "--pool", POOL]
    command += ["--type", "process", "--name", _worker_name(), "--install-policy", "never"]
    return launch("worker", command, environment(url))


def launch_tensorboard(port: int | None, record: ServiceProcess | None) -> ServiceProcess:
    """Start TensorBoard on every run's events.

    Raises UserError when the port is taken or it can't be started.
    """
    end("tensorboard", record, GRACE_SECONDS["tensorboard"])
    last = record.port if record else None
    chosen = _port(port, last, TENSORBOARD_PORT, "--tensorboard-port")
    command = _guarded("tensorboard", str(chosen), str(TENSORBOARD_FOLDER))
    return launch("tensorboard", command, environment(None), chosen)


def _guarded(*arguments: str) -> list[str]:
    """The command that serves something behind the check of who asks."""
    # -P: the package as this process has it, not a folder of that name in the working folder.
    return [sys.executable, "-P", "-m", "pipeline.server.guarded_server", *arguments]


def _port(requested: int | None, last: int | None, default: int, option: str) -> int:
    if requested is not None:
        return choose_port(requested, option, fixed=True)
    wanted = last or default
    port = choose_port(wanted, option, fixed=False)
    if port != wanted:
        click.echo(f"port {wanted} is taken; using {port}", err=True)
    return port


def environment(url: str | None) -> dict[str, str]:
    """The environment of a service; what the user has set for Prefect's server stays."""
    # A key is for the server that it was made for; a run's mark is for the run's processes.
    excluded = (URL, CLIENT_AUTH, SERVER_AUTH, "PREFECT_API_KEY", "PREFECT_PROFILE", "REPRISE_RUN")
    kept = {name: value for name, value in os.environ.items() if name not in excluded}
    programs = str(Path(sys.executable).parent)
    own = {
        # A stage's command is 'python …': this environment's.
        "PATH": f"{programs}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "PREFECT_HOME": str(PREFECT_FOLDER.resolve()),
        BASE: str(Path.cwd().resolve()),
        "PYTHONUNBUFFERED": "1",
    }
    if url is not None:
        # The UI asks at the same address, and no other site's page may.
        port = urllib.parse.urlsplit(url).port
        pages = {CORS: ",".join(origins(port))} if port is not None else {}
        own |= {URL: url, "PREFECT_SERVER_UI_API_URL": url, **pages}
        if (auth := read_auth()) is not None:
            own |= {SERVER_AUTH: auth, CLIENT_AUTH: auth}
    return {**SETTINGS, **kept, **own, **past_proxies(kept)}


def _worker_name() -> str:
    return f"{platform.node() or 'worker'} {Path.cwd().name}"


def is_ready(service: ServiceProcess, url: str) -> bool:
    """Check that a service does its work; `url` is the API of the server."""
    if service.name == "server":
        return answers(url)
    if service.name == "worker":
        return _is_online(service, url)
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(str(service.address), timeout=3):
            return True
    except (OSError, urllib.error.URLError):
        return False


def _is_online(service: ServiceProcess, url: str) -> bool:
    """Check whether the worker has reported to the server since it was started."""
    try:
        workers: list[dict[str, Any]] = request(url, f"/work_pools/{POOL}/workers/filter", {})
    except OSError:
        return False
    seen = [w["last_heartbeat_time"] for w in workers if w["name"] == _worker_name()]
    return any(datetime.fromisoformat(s).timestamp() >= service.started - 1 for s in seen if s)


def explain(error: UserError) -> None:
    """Add to `error` what may keep a server from starting: a full disk, a locked database."""
    free = shutil.disk_usage(HOME).free // 1_000_000
    if free < NEEDED_MEGABYTES:
        error.add_note(f"the disk of {HOME.resolve()} is full: {free} MB are free")
    if DATABASE.exists():
        try:
            with sqlite3.connect(DATABASE, timeout=0.5, isolation_level=None) as database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
            database.close()
        except sqlite3.Error as problem:
            error.add_note(
                f"{DATABASE} can't be written: {problem}\n"
                f"  if another process holds it, end that one ('fuser {DATABASE}' names it)"
            )
