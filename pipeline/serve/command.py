"""`reprise serve`: the trained model over HTTP until SIGTERM or Ctrl-C."""

import asyncio
import ipaddress
import json
import os
import re
import shlex
import signal
import socket
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from pipeline.common.ports import choose_port
from pipeline.serve.app import make_app
from pipeline.serve.bundle import Bundle, load_bundle
from pipeline.serve.codec.signature import example_row
from pipeline.serve.http.connections import (
    MAX_HEAD_BYTES,
    Connection,
    Connections,
    Limits,
    Listener,
    max_connections,
)
from pipeline.serve.http.hosts import known_hosts
from pipeline.serve.http.log import set_up_log
from pipeline.serve.service import Service, Settings
from stages.common.errors import UserError

TOKEN = "REPRISE_SERVE_TOKEN"  # noqa: S105  # the variable's name
MIN_TOKEN_LENGTH = 16
# An example longer than this is not printed.
MAX_EXAMPLE_LENGTH = 400
# Beyond the time-out of a request, which is under way when the server is told to stop.
GRACE_SECONDS = 5
BACKLOG = 2048


def serve_as_asked(
    model: Path,
    host: str,
    port: int,
    *,
    access_log: bool,
    allow_host: tuple[str, ...],
    max_body_mb: int,
    **limits: Any,
) -> None:
    """Serve the model in a folder, with the options of the command line as they are named there."""
    limits["max_body_bytes"] = max_body_mb << 20
    limits["hosts"] = known_hosts(host, allow_host, loopback=is_loopback(host))
    settings = Settings(model, token=read_token(host), **limits)
    serve(settings, host, port, access_log=access_log)


def serve(settings: Settings, host: str, port: int, *, access_log: bool) -> None:
    """Load the model, say where it is, and answer until told to stop; then finish, and return.

    Raises UserError when the model, the port or the token does not allow it.
    """
    _check_name(settings.name)
    num = max_connections(settings.max_connections)
    bundle = load_bundle(settings.folder)
    set_up_log(access_log=access_log)
    with bind(host, port) as listener:
        service = Service(settings, bundle)
        limits = Limits(
            num=num,
            header_seconds=settings.header_seconds,
            answer_seconds=settings.timeout_seconds + GRACE_SECONDS,
            # In chunks of a few bytes a body is longer than its bytes.
            request_bytes=MAX_HEAD_BYTES + 2 * settings.max_body_bytes,
        )
        listener.connections = Connections(limits, service.metrics)
        server = make_server(service, listener.connections, access_log=access_log)

        def stop(_number: int, _frame: FrameType | None) -> None:
            server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            # The server has its own handlers while it runs, and raises the signal again at its
            # end: by default that would be an exit code other than 0.
            signal.signal(number, stop)
        _say(_introduction(service, _address(listener)))
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(run_server(server, listener))
            # The end waits for all threads, of which one may never come back: that of a read from
            # a disk that is gone, or of a run of the model that takes for ever.
            last = threading.Timer(GRACE_SECONDS, _end)
            last.daemon = True
            last.start()
    _say("stopped")


async def run_server(server: uvicorn.Server, listener: Listener) -> None:
    """Answer until the server is told to stop."""

    def stop(_: asyncio.Task[None]) -> None:
        server.should_exit = True

    watching = asyncio.create_task(listener.connections.watch())
    # Without it nothing would bound the connections: better no server, and the reason.
    watching.add_done_callback(stop)
    await server.serve([listener])
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


def _check_name(name: str) -> None:
    """Raise UserError when a path could not hold the model's name as it is."""
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise UserError(f"--name '{name}' must be of letters, digits, '.', '_' and '-' alone")


def _end() -> None:
    _say("stopped; a thread was still at work")
    os._exit(0)


def read_token(host: str) -> str | None:
    """The token that requests must have, of the environment; None: none is needed.

    Raises UserError when `host` can be reached from elsewhere and there is no token, or when it
    is too short.
    """
    token = os.environ.get(TOKEN)
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise UserError(f"{TOKEN} has {len(token)} characters: it needs {MIN_TOKEN_LENGTH} or more")
    if token is None and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached from other machines, and there is no token\n"
            f"  put one of {MIN_TOKEN_LENGTH} characters or more into {TOKEN}, such as "
            f'export {TOKEN}="$(openssl rand -hex 24)"'
        )
    if token is not None and not token.isascii():
        raise UserError(f"{TOKEN} holds characters that no HTTP header can: use letters and digits")
    return token


def is_loopback(host: str) -> bool:
    """Check that a server bound to `host` is reached from this machine alone."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        raise UserError(f"--host {host} is no name or address of this machine") from None
    return all(ipaddress.ip_address(str(each[4][0]).split("%")[0]).is_loopback for each in found)


def bind(host: str, port: int) -> Listener:
    """The listening socket. Raises UserError when it can't be had."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    if port and is_loopback(host) and family == socket.AF_INET:
        choose_port(port, "--port", fixed=True)
    # With the protocol said, asyncio sends small answers at once (TCP_NODELAY).
    listener = Listener(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)
        message = f"cannot listen at {host}, port {port}: {why}\n  choose with --host and --port"
        raise UserError(message) from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _introduction(service: Service, address: str) -> str:
    settings, signature = service.settings, service.bundle.signature
    what = f"{signature.task} of '{signature.target}'"
    if signature.classes is not None:
        what += f", {len(signature.classes)} classes"
    names = [" ".join(each.column.split()) for each in signature.inputs]
    columns = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return "\n".join(
        [
            f"{address}   serves {settings.folder}, {what}",
            f"  model     {service.bundle.version}",
            f"  columns   {columns}",
            f"  page      {address}/docs",
            f"  protocol  {address}/v2/models/{settings.name}",
            f"  metrics   {address}/metrics",
            *(["  token     asked for"] if settings.token is not None else []),
            "try it:",
            f"  {_curl(service.bundle, settings, address)}",
        ]
    )


def _curl(bundle: Bundle, settings: Settings, address: str) -> str:
    """A command that works for this very model."""
    token = ""
    if settings.token is not None:
        token = f' -H "Authorization: Bearer ${TOKEN}"'
    row = {"rows": [example_row(bundle.signature)]}
    body = json.dumps(row, ensure_ascii=False)
    if not body.isprintable():
        body = json.dumps(row)
    if len(body) <= MAX_EXAMPLE_LENGTH:
        return f"curl -s {address}/predict{token} -d {shlex.quote(body)}"
    return f"curl -s {address}/example{token} | curl -s {address}/predict{token} -d @-"


def make_server(
    service: Service, connections: Connections, *, access_log: bool = False
) -> uvicorn.Server:
    """The server of a model, to be run on a listening socket."""
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(service, _say),
            # Another event loop would not ask this listener for its connections.
            loop="asyncio",
            http=partial(Connection, connections=connections),  # type: ignore[arg-type]
            log_config=None,
            log_level="info" if access_log else "warning",
            access_log=access_log,
            server_header=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=int(service.settings.timeout_seconds) + GRACE_SECONDS,
        )
    )
    service.is_stopping = lambda: server.should_exit
    return server


def _say(text: str) -> None:
    # A name may hold what a terminal obeys.
    text = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    # Who started it may have closed the pipe: that is no reason to stop looking for new models.
    with suppress(OSError):
        print(text, flush=True)
