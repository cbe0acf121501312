"""Prefect's server and worker, and the ports of this machine that commands take."""

import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from packaging.version import InvalidVersion, Version

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
# A server that is up answers each of these at once.
ANSWER_SECONDS = 5.0
MAX_WORKERS = 20
PINS = "constraints.txt"
NEWER_SERVER = "python -m pip install --upgrade prefect where the server runs, and start it again"


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
        # Prefect Cloud has no version of its own: it understands every client.
        found = None if _is_cloud(url) else str(_get(url, "/admin/version"))
    except (OSError, ValueError) as error:
        yield _not_asked(url, error)
        return
    yield from check_version(url, found, installed)
    try:
        workers = _online_workers(url)
        versions = _worker_versions(url, workers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        yield _not_asked(url, error)
        return
    if not workers:
        why = "deployments and schedules wait until one takes them"
        yield note(f"no worker of the pool '{POOL}' is online", why, "reprise up")
    for worker in workers:
        name = str(worker["name"])
        yield from check_worker(name, versions.get(name), found, installed)
    if not is_local(url):
        yield from check_clock(url)


def _not_asked(url: str, error: Exception) -> Finding:
    why = "it may ask for a name: PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
    return note(f"the server at {url} answers, and not to this: {error}", why)


def check_version(url: str, found: str | None, installed: str) -> Iterator[Finding]:
    """Yield whether this Prefect and the server's understand each other, by Prefect's own rule.

    `found` is the server's version; None: Prefect Cloud's, which understands every client.
    """
    if found is None or _parse(found) in (None, _parse(installed)):
        yield ok(f"Prefect {found or 'Cloud'} answers at {url}")
        return
    server, client = _parse(found), _parse(installed)
    assert server is not None
    assert client is not None
    what = f"the server at {url} is Prefect {found}, here is {installed}"
    move = "reprise down; make setup; reprise up" if is_local(url) else NEWER_SERVER
    if server.major != client.major:
        why = "Prefect refuses another major version: no run starts"
        yield wrong(what, why, f"{move}   # {installed}")
    elif server < client:
        why = "an older server may not know what a newer client asks for"
        yield note(what, why, f"{move}   # {installed}")
    else:
        why = "a newer server takes an older client; only equal versions are tested together"
        mend = f"prefect=={found} in {PINS}, 'prefect-version: {found}' in prefect.yaml"
        yield note(what, why, f"{mend}, then make setup")


def check_worker(
    name: str, own: str | None, server: str | None, installed: str
) -> Iterator[Finding]:
    """Yield whether a worker's Prefect is at most the server's, and the same as here.

    `own` is its version; None where the server has no event of it: it keeps them for a week.
    """
    if own is None:
        yield ok(f"the worker '{name}' is online, its version is not known: no event of this week")
        return
    mine, theirs = _parse(own), _parse(server or "")
    mend = f"make setup where it runs, and start it again   # {installed}"
    if mine is not None and theirs is not None and mine.major != theirs.major:
        what = f"the worker '{name}' is Prefect {own}, its server {server}"
        yield wrong(what, "Prefect refuses another major version: it takes no run", mend)
    elif mine is not None and theirs is not None and mine > theirs:
        what = f"the worker '{name}' is Prefect {own}, its server {server}"
        why = "an older server may not know what the worker asks for: runs may stay pending"
        yield note(what, why, NEWER_SERVER)
    elif mine is not None and mine != _parse(installed):
        what = f"the worker '{name}' is Prefect {own}, here is {installed}"
        why = "a run that it takes has its Prefect, and may do otherwise than here"
        yield note(what, why, mend)
    else:
        yield ok(f"the worker '{name}' is online, Prefect {own}")


def _parse(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _get(url: str, path: str, body: object = None) -> Any:
    return request(url, path, body, seconds=ANSWER_SECONDS)


def _is_cloud(url: str) -> bool:
    return (urllib.parse.urlsplit(url).hostname or "").endswith("prefect.cloud")


def _online_workers(url: str) -> list[Any]:
    """The workers of the project's pool; none where the server has no such pool yet."""
    try:
        found: list[Any] = _get(url, f"/work_pools/{POOL}/workers/filter", {})
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.NOT_FOUND:
            raise
        return []
    return [worker for worker in found if worker.get("status") == "ONLINE"][:MAX_WORKERS]


def _worker_versions(url: str, workers: list[Any]) -> dict[str, str]:
    """The version of Prefect of each worker, by its name.

    The list of workers has none. It stands in the events that a worker sends: when it starts, and
    for each run.
    """
    found: dict[str, str] = {}
    for worker in workers:
        name = str(worker["name"])
        resource = {"id_prefix": ["prefect.worker."], "labels": {"prefect.resource.name": name}}
        pool = {"id": [f"prefect.work-pool.{worker['work_pool_id']}"]}
        wanted = {"resource": resource, "related": pool, "order": "DESC"}
        try:
            page = _get(url, "/events/filter", {"filter": wanted, "limit": 1})
        except urllib.error.HTTPError:
            # Whoever may not read events is told that the version is not known.
            continue
        for event in page["events"]:
            if version_ := event["resource"].get("prefect.version"):
                found[name] = str(version_)
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
