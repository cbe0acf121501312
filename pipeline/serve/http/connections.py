"""The server's connections: how many may be open, and how long one may take to say what it wants.

uvicorn closes a connection that is idle between two requests, and no other. So one that stops
within its headers, or reads no answer, would stay for ever, and enough of them would leave nobody
else a place.
"""

import asyncio
import json
import logging
import resource
import select
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from errno import EMFILE, ENFILE
from itertools import takewhile
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.serve.metrics import Metrics
from stages.common.errors import UserError

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 128
LOOK_SECONDS = 0.5
# File descriptors for all else: a new model, the page's files, the log, the event loop's own.
SPARE_FILES = 64


@dataclass(frozen=True)
class Limits:
    """The limits of a connection: seconds for its headers and its answer, bytes of one request."""

    num: int
    header_seconds: float
    answer_seconds: float
    request_bytes: int


def max_connections(requested: int) -> int:
    """The number of connections: as requested, or as many as this process may have files open.

    Raises UserError where none is left.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return requested
    if allowed <= SPARE_FILES:
        raise UserError(
            f"this process may have {allowed} files open, and needs more than {SPARE_FILES}\n"
            f"  raise it with 'ulimit -n {SPARE_FILES + min(requested, 1024)}'"
        )
    return min(requested, allowed - SPARE_FILES)


class Connections:
    """Open connections, by what they do: the ones that began it first come first.

    A connection waits while nothing is asked on it, from its first byte to the end of its headers
    too, and is answered from there to the end of its answer.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self._count = metrics.closed
        # When each began, by the monotonic clock. Moved from one to the other it goes to the end.
        self._waiting: dict[Connection, float] = {}
        self._answering: dict[Connection, float] = {}
        # Taken from the listening socket, and not yet a Connection.
        self.num_new = 0
        metrics.watch_connections(lambda: len(self._waiting) + len(self._answering))

    @property
    def full(self) -> bool:
        """Check whether there is no place for another."""
        num = self.num_new + len(self._waiting) + len(self._answering)
        return num >= self.limits.num

    def waits(self, connection: "Connection") -> None:
        """Note that nothing is asked on it from now on."""
        self._answering.pop(connection, None)
        self._waiting[connection] = time.monotonic()

    def answers(self, connection: "Connection") -> None:
        """Note that the headers of a request are there."""
        self._waiting.pop(connection, None)
        self._answering.pop(connection, None)
        self._answering[connection] = time.monotonic()

    def ended(self, connection: "Connection") -> None:
        """Forget it."""
        self._waiting.pop(connection, None)
        self._answering.pop(connection, None)

    def make_room(self) -> bool:
        """Close the one that has waited longest; False where all are being answered.

        Who asks for something is answered within moments: it is never that one unless all are new.
        """
        oldest = next(iter(self._waiting), None)
        if oldest is None:
            return False
        text = "all %d connections are taken: closed the one that waited longest, of %s"
        logging.getLogger(__name__).warning(text, self.limits.num, oldest.client)
        self._close([oldest], "room")
        return True

    async def watch(self) -> None:
        """Close what takes too long, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = time.monotonic()
            most, header_seconds = self.limits.answer_seconds, self.limits.header_seconds
            stuck = _since(self._answering, now - most) + _since(self._waiting, now - most)
            # What has been answered may be read for as long as a request may take.
            silent = [c for c in _since(self._waiting, now - header_seconds) if not c.has_unsent()]
            if slow := {*stuck, *silent}:
                self._close(slow, "slow")
                text = "closed %d connections, one of %s: no request within %g s, or %g s for one"
                client = next(iter(slow)).client
                logging.getLogger(__name__).warning(text, len(slow), client, header_seconds, most)

    def _close(self, connections: "Iterable[Connection]", reason: str) -> None:
        for connection in connections:
            self.ended(connection)
            self._count.labels(reason).inc()
            connection.abort()

    def large(self, connection: "Connection") -> None:
        """Close one that sends too much for one request; say so, but not into another answer."""
        if connection.waits_for_headers():
            connection.transport.write(_answer("431 Request Header Fields Too Large", "too long"))
            connection.transport.close()
            self._count.labels("large").inc()
        else:
            self._close([connection], "large")

    def refuse(self, taken: socket.socket) -> None:
        """Say on a connection that there is no place for it, and close it."""
        self._count.labels("refused").inc()
        taken.setblocking(False)
        with taken, suppress(OSError):
            taken.send(_answer("503 Service Unavailable", "too many connections"))


def _since(connections: "dict[Connection, float]", moment: float) -> "list[Connection]":
    """The connections that began before a moment."""
    return [c for c, _ in takewhile(lambda item: item[1] < moment, connections.items())]


def _answer(status: str, error: str) -> bytes:
    body = json.dumps({"error": error})
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Listener(socket.socket):
    """A listening socket that takes a connection only where there is a place for it.

    Left to itself asyncio takes all; once there is no file descriptor left, it says so with a
    traceback a thousand times a second, and nobody is answered.
    """

    connections: Connections

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection and its address; BlockingIOError where none may be taken now."""
        while True:
            if self.connections.full and (not self._is_asked() or self.connections.make_room()):
                # What was closed is gone in the next turn of the event loop, which comes back here.
                raise BlockingIOError
            try:
                taken, address = super().accept()
            except OSError as error:
                if error.errno in (EMFILE, ENFILE) and self.connections.make_room():
                    raise BlockingIOError from None
                raise
            if not self.connections.full:
                self.connections.num_new += 1
                return taken, address
            self.connections.refuse(taken)

    def _is_asked(self) -> bool:
        """Check whether a connection is waiting to be taken."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return bool(poll.poll(0))


class Connection(HttpToolsProtocol):
    """One connection, which may send so much: uvicorn bounds neither headers nor trailers."""

    def __init__(self, *, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        connections.num_new -= 1
        connections.waits(self)
        self._in_head, self._lost, self._aborted = True, False, False
        # Of the headers or of the body, and not those that came along with the end of the other.
        self._num_bytes = 0

    def has_unsent(self) -> bool:
        """Check whether a part of an answer waits for its reader."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def waits_for_headers(self) -> bool:
        """Check whether nothing is being answered on it."""
        return self._in_head and (self.cycle is None or self.cycle.response_complete)

    def abort(self) -> None:
        """Close it, whatever is under way."""
        self._aborted = True
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless it had to make room for others one turn of the event loop before."""
        super().connection_made(transport)
        if self._aborted:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is under way; it has been closed, by whomever."""
        self._lost = True
        self._connections.ended(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, unless it is too much for one request."""
        self._num_bytes += len(data)
        super().data_received(data)
        most = MAX_HEAD_BYTES if self._in_head else self._connections.limits.request_bytes
        too_much = self._num_bytes > most or len(self.headers or ()) > MAX_HEADERS
        if too_much and not self.transport.is_closing():
            self._connections.large(self)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        super().on_headers_complete()
        self._in_head, self._num_bytes = False, 0
        self._connections.answers(self)

    def on_message_complete(self) -> None:
        """Note the end of a request, after which the next one's headers may come."""
        super().on_message_complete()
        self._in_head, self._num_bytes = True, 0

    def on_response_complete(self) -> None:
        """Wait for the next request, or answer it where it is there already."""
        super().on_response_complete()
        if self._lost:
            # The first of several requests that came at once, and whose client has gone.
            return
        if self.cycle.response_complete:
            self._connections.waits(self)
        else:
            self._connections.answers(self)
