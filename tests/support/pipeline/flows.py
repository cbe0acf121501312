"""A run of the flow, and a proxy before its server."""

import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.conftest import Project
from tests.support.dags import flow_run_in, task_states


def run(
    project: Project,
    url: str,
    *arguments: str,
    ok: bool | None = True,
    cold: bool = False,
    **env: str,
) -> tuple[str, dict[str, str]]:
    """`reprise run`; what it said, and the states of its tasks in Prefect."""
    variables = {"PREFECT_API_URL": url, **env}
    done = project.run("reprise", "run", *arguments, ok=ok, env=variables, cold=cold)
    said = done.stdout + done.stderr
    return said, task_states(url, flow_run_in(said))


@contextmanager
def proxy(url: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Another address of the server, and a function after which nothing answers there."""
    target = urllib.parse.urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    pairs: list[socket.socket] = []

    def forward(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection((target.hostname, target.port))
                pairs.extend((near, far))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=forward, args=ends, daemon=True).start()

    def close() -> None:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        for end in (listener, *pairs):
            end.close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{target.path}", close
    finally:
        close()
