"""`reprise up` and `reprise down`: Prefect's server, a worker and TensorBoard on this machine."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import click

from pipeline.server.access import AUTH, CLIENT_AUTH, URL, check_auth
from pipeline.server.launch import (
    GRACE_SECONDS,
    environment,
    explain,
    is_ready,
    launch_server,
    launch_tensorboard,
    launch_worker,
)
from pipeline.server.names import POOL
from pipeline.server.prefect_api import configured_server
from pipeline.server.register import (
    ensure_automation,
    ensure_deployments,
    ensure_pool,
    read_deployments,
)
from pipeline.server.services import (
    LOGS,
    ServiceProcess,
    find_process,
    log_file,
    one_at_a_time,
    read_records,
    wait_until,
    write_records,
)
from pipeline.server.shutdown import end
from stages.common.errors import UserError

# A server's first start builds its database; on a busy machine that has taken 20 s.
START_SECONDS = 90.0


@dataclass(frozen=True)
class UpOptions:
    """The options of `reprise up`; a port of None is the default or the next free one."""

    port: int | None = None
    tensorboard_port: int | None = None
    worker: bool = True
    tensorboard: bool = True


def up(wanted: UpOptions) -> None:
    """Start what is wanted and does not run yet, and print where it is.

    Raises UserError when a port is taken that the user asked for, or when something does not
    come up; what this call has started is ended then.
    """
    with one_at_a_time(), _stopped_by_signals():
        before = read_records()
        services, started = _start(wanted)
    if not started:
        click.echo("it is up already")
    for name in started:
        if name in before:
            shown = log_file(name).with_suffix(".before.log")
            click.echo(f"{name} had ended, and was started again; what it last said: {shown}")
    _print_table(services)


def start_server_alone() -> str:
    """Start Prefect's server without worker and TensorBoard, say so, and return its API's address.

    Raises UserError when it does not come up.
    """
    with one_at_a_time(), _stopped_by_signals():
        services, started = _start(UpOptions(worker=False, tensorboard=False))
    address = services["server"].address
    if started:
        click.echo(f"started a Prefect server: {address}   ('reprise down' ends it)", err=True)
    return f"{address}/api"


def _start(wanted: UpOptions) -> tuple[dict[str, ServiceProcess], list[str]]:
    """Bring up what is missing; all services that run now, and the names of those just started."""
    records = read_records()
    services = {name: s for name, s in records.items() if find_process(s) is not None}
    _check_ports(wanted, services)
    if "server" in services and (said := check_auth()) is not None:
        click.echo(said, err=True)
    started: list[ServiceProcess] = []

    def note(service: ServiceProcess) -> ServiceProcess:
        started.append(service)
        services[service.name] = service
        write_records(services)
        return service

    try:
        server = services.get("server") or note(launch_server(wanted.port, records.get("server")))
        url = f"{server.address}/api"
        if "worker" in services and records["server"].port != server.port:
            # It asks at the old address.
            end("worker", services.pop("worker"), GRACE_SECONDS["worker"])
        if wanted.tensorboard and "tensorboard" not in services:
            note(launch_tensorboard(wanted.tensorboard_port, records.get("tensorboard")))
        _wait_for_server(server, url)
        if wanted.worker:
            ensure_pool(url)
            if "worker" not in services:
                note(launch_worker(url, records.get("worker")))
            ensure_automation(url)
            ensure_deployments(url, environment(url))
        for service in started:
            _wait(service, url)
    except BaseException:
        for service in reversed(started):
            try:
                end(service.name, service, GRACE_SECONDS[service.name])
                services.pop(service.name)
                write_records(services)
            except UserError as error:
                # The others are to be ended, and the reason said, all the same.
                click.echo(str(error), err=True)
        raise
    return services, [service.name for service in started]


def _wait_for_server(server: ServiceProcess, url: str) -> None:
    try:
        _wait(server, url)
    except UserError as error:
        explain(error)
        raise


def _wait(service: ServiceProcess, url: str) -> None:
    wait_until(service, lambda: is_ready(service, url), START_SECONDS)


def _check_ports(wanted: UpOptions, services: dict[str, ServiceProcess]) -> None:
    ports = {"server": wanted.port, "tensorboard": wanted.tensorboard_port}
    for name, port in ports.items():
        service = services.get(name)
        if service is not None and port is not None and port != service.port:
            raise UserError(
                f"{name} is up already at {service.address}\n"
                f"  for port {port} instead: 'reprise down', then 'reprise up' again"
            )


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end this command as Ctrl-C does: what it has started is ended too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, _stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _print_table(services: dict[str, ServiceProcess]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    server, worker = services["server"], services.get("worker")
    table.add_row("Prefect", str(server.address))
    table.add_row("log in", f"with what {AUTH} says, which only you can read")
    if worker is not None:
        table.add_row("worker", f"work pool '{POOL}', process {worker.pid}")
        for deployment in read_deployments(f"{server.address}/api"):
            table.add_row(f"deployment {deployment['name']}", _describe(deployment))
    if "tensorboard" in services:
        table.add_row("TensorBoard", str(services["tensorboard"].address))
    table.add_row("logs", f"{LOGS}/")
    Console().print(table)
    click.echo(
        f"for the command prefect: export {URL}={server.address}/api {CLIENT_AUTH}=$(cat {AUTH})"
    )
    configured = configured_server()
    if configured is not None and configured[0] != f"{server.address}/api":
        url, where = configured
        click.echo(f"note: {URL} is {url} ({where}): 'reprise run' goes there", err=True)


def _describe(deployment: dict[str, Any]) -> str:
    """The schedule of a deployment, in words."""
    shown = []
    for entry in deployment["schedules"]:
        schedule = entry["schedule"]
        when = schedule.get("cron") or f"every {schedule.get('interval')} s"
        state = "" if entry["active"] and not deployment["paused"] else ", switched off"
        shown.append(f"{when} {schedule.get('timezone') or 'UTC'}{state}")
    return "; ".join(shown) or "when asked: in the UI, or 'prefect deployment run'"
