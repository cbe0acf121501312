"""Clients that hold on: slow, silent and many."""

import asyncio
import contextlib
import json
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.serve.bundle import Bundle
from pipeline.serve.command import bind, make_server, run_server
from pipeline.serve.http import connections
from pipeline.serve.http.connections import Connections, Limits, max_connections
from pipeline.serve.http.log import MOST
from pipeline.serve.service import Service
from stages.common.errors import UserError
from tests.conftest import ROOT, project_environment
from tests.support.serving import IMAGE, SECONDS

# Of the connections that a test has opened, to be closed at its end.
WRITERS: ContextVar[list[asyncio.StreamWriter]] = ContextVar("WRITERS")


@contextlib.asynccontextmanager
async def serving(service: Service, **limits: Any) -> AsyncIterator[int]:
    """A server in this event loop, with small limits; its port."""
    most: dict[str, Any] = {"num": 20, "header_seconds": 0.3, "answer_seconds": 0.6}
    listener = bind("127.0.0.1", 0)
    made = Limits(**{**most, "request_bytes": 200_000, **limits})
    listener.connections = Connections(made, service.metrics)
    server = make_server(service, listener.connections)
    task = asyncio.create_task(run_server(server, listener))
    WRITERS.set([])
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
        for writer in WRITERS.get():
            writer.close()
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, SECONDS)


HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def say(port: int, content: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    WRITERS.get().append(writer)
    writer.write(content)
    return reader, writer


async def is_answered(port: int) -> bool:
    """Whether somebody who asks now is answered."""
    reader, writer = await say(port, HEALTH)
    head = await asyncio.wait_for(reader.readline(), SECONDS)
    writer.close()
    return head == b"HTTP/1.1 200 OK\r\n"


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes the connection, which it must."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), SECONDS)
    return b""


def test_a_connection_that_never_asks_is_closed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.02)
    trailing = b"Content-Length: 1000000\r\n\r\n"

    async def story() -> None:
        async with serving(service) as port:
            silent, _ = await say(port)
            stopped, _ = await say(port, HEALTH[:-4])
            second, _ = await say(port, HEALTH + HEALTH[:20])
            answered, writer = await say(port, HEALTH[:-2] + trailing)
            dripping, drops = await say(port, HEALTH[:-2])

            async def drip() -> None:
                with contextlib.suppress(ConnectionError):
                    while True:
                        drops.write(b"X: y\r\n")
                        writer.write(b"x")
                        await asyncio.gather(drops.drain(), writer.drain())
                        await asyncio.sleep(0.02)

            task = asyncio.create_task(drip())
            for reader in (second, answered):
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            for reader in (silent, stopped, dripping, second, answered):
                await rest(reader)
            await task
            assert await is_answered(port)

    asyncio.run(story())
    assert 'closed_total{reason="slow"} 5.0' in service.metrics.text().decode()
    assert "reprise_connections 0.0" in service.metrics.text().decode()


def test_who_reads_no_answer_is_closed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.02)
    # Far more than the kernel keeps for a connection.
    many = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30

    async def story() -> None:
        async with serving(service) as port:
            reader, writer = await say(port, many)
            writer.transport.pause_reading()
            await until(lambda: 'reason="slow"} 1.0' in service.metrics.text().decode())
            assert await is_answered(port)
            writer.transport.resume_reading()
            assert len(await rest(reader)) < 30 << 20

    asyncio.run(story())
    assert "reprise_connections 0.0" in service.metrics.text().decode()


async def until(condition: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (HEALTH[:-2] + b"X: " + b"y" * 66_000, b"HTTP/1.1 431 "),
        (HEALTH[:-2] + b"X: y\r\n" * 200, b"HTTP/1.1 431 "),
        # After a body in chunks there may be headers once more, and chunks may be of one byte.
        (b"0\r\n" + b"X: y\r\n" * 50_000, b""),
        (b"1\r\nx\r\n" * 50_000, b""),
    ],
)
def test_a_request_without_end_is_closed(service: Service, content: bytes, said: bytes) -> None:
    post = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def story() -> None:
        limits = {"header_seconds": SECONDS, "answer_seconds": SECONDS}
        async with serving(service, request_bytes=20_000, **limits) as port:
            reader, writer = await say(port, content if said else post + content)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            assert (await rest(reader)).startswith(said)

    asyncio.run(story())
    assert 'closed_total{reason="large"} 1.0' in service.metrics.text().decode()


def test_a_full_server_closes_who_waits_longest_and_nobody_who_is_answered(
    service: Service, bundle: Bundle
) -> None:
    ended = asyncio.Event()

    async def held(*_: object) -> list[Any]:
        await ended.wait()
        raise RuntimeError("held")

    service.batcher.run = held  # type: ignore[method-assign,assignment]
    body = json.dumps({"rows": [{IMAGE: 1.0, "\x1b]0;x\x07": "a"}]}).encode()
    post = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def story() -> None:
        async with serving(service, num=5, header_seconds=SECONDS, answer_seconds=SECONDS) as port:
            slow = [await say(port, HEALTH[:20]) for _ in range(5)]
            # Being full is no reason to close anybody.
            await asyncio.sleep(0.1)
            assert 'reason="room"} 0.0' in service.metrics.text().decode()
            assert await is_answered(port)
            assert await rest(slow[0][0]) == b""
            busy = [await say(port, post + body) for _ in range(5)]
            for reader, _ in slow[1:]:
                assert await rest(reader) == b""
            await until(lambda: "reprise_connections 5.0" in service.metrics.text().decode())
            refused, _ = await say(port)
            assert (await rest(refused)).startswith(b"HTTP/1.1 503 ")
            ended.set()
            for reader, _ in busy:
                assert (await reader.readline()).startswith(b"HTTP/1.1 500")
            assert await is_answered(port)

    asyncio.run(story())
    assert 'closed_total{reason="refused"} 1.0' in service.metrics.text().decode()


def test_one_that_makes_room_before_it_has_begun_is_closed_too(service: Service) -> None:
    async def story() -> None:
        async with serving(service, num=1, header_seconds=SECONDS, answer_seconds=SECONDS) as port:
            loop, slow = asyncio.get_running_loop(), list[socket.socket]()

            def connect() -> None:
                slow.append(socket.create_connection(("127.0.0.1", port), SECONDS))
                slow[-1].setblocking(False)
                # A timer is the last step of a turn of the event loop: the next turn takes this
                # connection just after it has made the one before, which has not begun yet.
                if len(slow) < 50:
                    loop.call_later(1e-6, connect)

            connect()
            await until(lambda: len(slow) == 50)
            await asyncio.sleep(0.1)
            assert await is_answered(port)
            for each in slow[:-1]:
                with contextlib.suppress(ConnectionError):
                    while await asyncio.wait_for(loop.sock_recv(each, 1000), SECONDS):
                        pass
            for each in slow:
                each.close()

    asyncio.run(story())


def test_hundreds_of_slow_clients_keep_nobody_out_and_fill_no_disk(
    folder: Path, tmp_path: Path
) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    home.mkdir()
    arguments = ["serve", "--port", "0", "--model", str(folder), "--header-seconds", "600"]
    code = "from pipeline.cli import main; main()"
    environment = {**project_environment(), "HOME": str(home)}
    for name in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
        environment.pop(name, None)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)),
        )
    assert process.stdout is not None
    with process.stdout, contextlib.ExitStack() as stack:
        stack.callback(process.wait)
        stack.callback(process.kill)
        address = process.stdout.readline().split()[0]
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), SECONDS) as first:
            first.sendall(HEALTH[:20])
            for _ in range(300):
                each = socket.create_connection(("127.0.0.1", port), SECONDS)
                stack.enter_context(each).sendall(HEALTH[:20])
            for _ in range(5):
                answer = httpx.get(f"{address}/v2/health/live", timeout=SECONDS)
                assert answer.json() == {"live": True}
            # The first has made room, long before its time-out.
            first.settimeout(SECONDS)
            with contextlib.suppress(ConnectionError):
                assert first.recv(100) == b""
        for _ in range(60):
            with socket.create_connection(("127.0.0.1", port), SECONDS) as each:
                each.sendall(b"\0 nonsense\r\n\r\n")
                assert each.recv(12) == b"HTTP/1.1 400"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    lines = log.read_text().splitlines()
    assert len(lines) <= 2 * MOST
    assert "Traceback" not in log.read_text()
    assert {line.split(":")[0].split(" ")[0] for line in lines} == {"all", "Invalid"}
    # ONNX Runtime keeps an identifier and the events that it is about to send.
    assert list(home.rglob("*")) == []


def test_a_process_without_a_file_to_spare_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed, num in ((128, 64), (10**6, 100), (resource.RLIM_INFINITY, 100)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=allowed: (most, most))
        assert max_connections(100) == num
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(UserError, match=r"may have 64 files open.*\n.*ulimit -n 164"):
        max_connections(100)
