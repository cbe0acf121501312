"""Prefect's server and TensorBoard, each behind a look at who asks.

A web page that somebody has open may send requests to any port of this machine. It can't hide
where it comes from (`Origin`), nor under which name it has found the machine (`Host`), which it
may have made to mean 127.0.0.1 (DNS rebinding). Any other name or page is refused.
"""

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from pipeline.common.ports import HOST

NAMES = (HOST, "localhost")
REFUSED = b"refused: ask at http://127.0.0.1 or http://localhost, from no other site's page\n"
# As the status line of WSGI and the code of ASGI.
FORBIDDEN = 403
# A websocket is closed with "policy violation".
POLICY_VIOLATION = 1008

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


def origins(port: int) -> tuple[str, ...]:
    """The pages that may ask a service of this port: its own, under both names of the machine."""
    return tuple(f"http://{name}:{port}" for name in NAMES)


def is_ours(hosts: Iterable[str], pages: Iterable[str], port: int) -> bool:
    """Check that a request with these headers `Host` and `Origin` comes from this machine.

    A program sends no `Origin`; a browser's page can't leave it out where it matters. The port in
    `Host` is that of a tunnel, perhaps, and says nothing.
    """
    names = [host.lower().rpartition(":")[0] or host.lower() for host in hosts]
    return len(names) == 1 and names[0] in NAMES and set(pages) <= {*origins(port)}


def guard_asgi(app: Asgi, port: int) -> Asgi:
    """`app`, which only sees requests from this machine."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == b"host"]
        pages = [value for name, value in headers if name == b"origin"]
        if is_ours(hosts, pages, port):
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            kind = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": FORBIDDEN, "headers": kind})
            await send({"type": "http.response.body", "body": REFUSED})

    return guarded


def guard_wsgi(app: Callable[..., Iterable[bytes]], port: int) -> Callable[..., Iterable[bytes]]:
    """The same for an application of the older protocol, which joins repeated headers itself."""

    def guarded(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        hosts = [environ["HTTP_HOST"]] if "HTTP_HOST" in environ else []
        pages = [environ["HTTP_ORIGIN"]] if "HTTP_ORIGIN" in environ else []
        if is_ours(hosts, pages, port):
            return app(environ, start_response)
        start_response(f"{FORBIDDEN} Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [REFUSED]

    return guarded


def serve_prefect(port: int) -> None:
    """Serve as `prefect server start` does in the foreground, until a signal ends it."""
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    uvicorn.run(
        guard_asgi(create_app(final=True), port),
        host=HOST,
        port=port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


def serve_tensorboard(port: int, folder: str) -> None:
    """Serve as `tensorboard --logdir FOLDER` does, until a signal ends it."""
    from absl import app
    from tensorboard import default, main_lib
    from tensorboard.program import TensorBoard, WerkzeugServer

    class Guarded(WerkzeugServer):  # type: ignore[misc]
        """TensorBoard's own server with the guard before its application."""

        def __init__(self, application: Callable[..., Iterable[bytes]], flags: Any) -> None:
            super().__init__(guard_wsgi(application, port), flags)

    main_lib.global_init()
    board = TensorBoard(plugins=default.get_plugins(), server_class=Guarded)
    arguments = ["tensorboard", "--logdir", folder, "--host", HOST, "--port", str(port)]
    app.run(board.main, argv=arguments, flags_parser=board.configure)


def main() -> None:
    """Serve what the arguments say: `prefect PORT`, or `tensorboard PORT FOLDER`."""
    what, port, *folder = sys.argv[1:]
    if what == "prefect":
        serve_prefect(int(port))
    else:
        serve_tensorboard(int(port), *folder)


if __name__ == "__main__":
    main()
