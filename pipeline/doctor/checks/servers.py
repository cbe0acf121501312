"""Prefect's server and worker, and the ports of this machine that commands take."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from pipeline.common.ports import choose_port
from pipeline.doctor.finding import Finding, Options, note, ok, wrong
from pipeline.server.access import is_local
from pipeline.server.names import POOL
from pipeline.server.prefect_api import answers, configured_server, request
from pipeline.server.services import find_process, read_records
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml

AREA = "Prefect"
PORTS = {4200: "--port", 6006: "--tensorboard-port", 8000: "--port of reprise serve"}
CLOCK_SECONDS = 60.0


def check(options: Options) -> Iterator[Finding]:
    """Yield what `reprise run`, `up` and deployments would stumble over."""
    installed = version("prefect")
    # A project may have dropped its deployments.
    file = Path("prefect.yaml")
    written = str(read_yaml(file).get("prefect-version", "")) if file.exists() else ""
    if written and written != installed:
        why = "'prefect deploy' refuses the file"
        yield note(f"prefect.yaml is for {written}, installed is {installed}", why, "make setup")
    records = read_records()
    for name, service in records.items():
        if find_process(service) is None:
            why = "deployments and 'reprise run' go on without it, or not at all"
            yield note(f"'reprise up' had started {name}, which has ended", why, "reprise up")
    server = records.get("server")
    configured = configured_server()
    if configured is not None:
        yield from check_server(configured[0], f"of {configured[1]}", installed, options)
    elif server is not None and server.address is not None and find_process(server) is not None:
        yield from check_server(f"{server.address}/api", "of 'reprise up'", installed, options)
    else:
        yield ok("no server is set: 'reprise run' starts one, and 'dvc repro' needs none")
    ours = {service.port for service in records.values() if find_process(service) is not None}
    for port, option in PORTS.items():
        if port not in ours:
            yield from check_port(port, option)


def check_server(url: str, where: str, installed: str, options: Options) -> Iterator[Finding]:
    """Yield whether a Prefect API answers, its version, its workers, and its clock."""
    if not is_local(url) and not options.network:
        yield ok(f"the server {url} was not asked: 'reprise doctor --network' does")
        return
    if not answers(url):
        why = "'reprise run' stops at its start; 'dvc repro' needs no server"
        yield wrong(f"no Prefect server answers at {url} ({where})", why, "unset PREFECT_API_URL")
        return
    try:
        found = str(request(url, "/admin/version"))
        workers = _workers(url)
    except (OSError, ValueError) as error:
        why = "it may ask for a name: PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
        yield note(f"the server at {url} answers, and not to this: {error}", why)
        return
    if found != installed:
        why = "a server and a client of different versions may not understand each other"
        mend = f".venv/bin/python -m pip install prefect=={found}   # or move the server"
        yield note(f"the server at {url} is Prefect {found}, here is {installed}", why, mend)
    else:
        yield ok(f"Prefect {found} answers at {url}")
    online = [worker for worker in workers if worker.get("status") == "ONLINE"]
    if not online:
        why = "deployments and schedules wait until one takes them"
        yield note(f"no worker of the pool '{POOL}' is online", why, "reprise up")
    if not is_local(url):
        yield from check_clock(url)


def _workers(url: str) -> list[Any]:
    """The workers of the project's pool; none where the server has no such pool yet."""
    try:
        found: list[Any] = request(url, f"/work_pools/{POOL}/workers/filter", {})
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return []
    return found


def check_clock(url: str) -> Iterator[Finding]:
    """Yield how far this machine's clock is from the server's, by an answer's date."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=3.0) as answer:  # noqa: S310
            date = answer.headers.get("Date")
    except OSError:
        return
    apart = time.time() - parsedate_to_datetime(date).timestamp() if date else 0.0
    if abs(apart) > CLOCK_SECONDS:
        why = "runs look late or unstarted, and schedules fire at another time than they say"
        mend = "timedatectl set-ntp true   # on both"
        yield wrong(f"this clock and the server's are {abs(apart):.0f} s apart", why, mend)


def check_port(port: int, option: str) -> Iterator[Finding]:
    """Yield who has a port that a command takes by default."""
    try:
        choose_port(port, option, fixed=True)
    except (UserError, psutil.Error) as error:
        said = str(error).split("\n")[0]
        yield note(said, "the next free port is taken instead, which the command prints")
    else:
        yield ok(f"port {port} is free")
