"""Attacks on `reprise serve`: names that are code, pages that ask, clients that hold on.

The model is a graph made by hand with names that nobody would give: no training is needed for it.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
from markdown_it import MarkdownIt
from onnx import TensorProto, helper

from pipeline.serve import command
from pipeline.serve.app import make_app
from pipeline.serve.bundle import Bundle, import_onnxruntime, load_bundle
from pipeline.serve.command import _introduction, _say, bind, make_server, run_server
from pipeline.serve.http import connections
from pipeline.serve.http.connections import Connections, Limits, max_connections
from pipeline.serve.http.hosts import known_hosts
from pipeline.serve.http.log import MOST, PERIOD_SECONDS, RateLimit
from pipeline.serve.service import Service, Settings
from stages.common.errors import UserError
from tests.conftest import ROOT, project_environment

TITLE = "</title><script>alert(1)</script>"
IMAGE = '<img src=x onerror="alert(2)">'
NAMES = [IMAGE, "![a](http://a.example/a.png)", "[b](javascript:alert(3))", "`c` *d*\n# e"]
SECONDS = 60
# Of the connections that a test has opened, to be closed at its end.
WRITERS: ContextVar[list[asyncio.StreamWriter]] = ContextVar("WRITERS")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gives back its first column."""
    made = tmp_path_factory.mktemp("attacks")
    number = helper.make_tensor_value_info("c0", TensorProto.DOUBLE, ["rows"])
    word = helper.make_tensor_value_info("c1", TensorProto.STRING, ["rows"])
    result = helper.make_tensor_value_info("prediction", TensorProto.DOUBLE, ["rows"])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["c0"], ["prediction"])], "g", [number, word], [result]
    )
    opset = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    onnx.checker.check_model(content)
    (made / "model.onnx").write_bytes(content)
    inputs = [
        {"name": "c0", "column": IMAGE, "kind": "numeric", "shape": ["rows"], "mean": 0.0},
        {"name": "c1", "column": "\x1b]0;x\x07", "kind": "categorical", "shape": ["rows"]},
    ]
    inputs[1]["categories"] = NAMES
    signature = {
        "model_md5": "0123",
        "onnx_md5": hashlib.md5(content).hexdigest(),
        "task": "regression",
        "target": TITLE,
        "key": None,
        "classes": None,
        "inputs": inputs,
        "outputs": [{"name": "prediction", "type": "float64", "shape": ["rows"]}],
    }
    (made / "signature.json").write_text(json.dumps(signature))
    return made


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


@pytest.fixture
def service(folder: Path, bundle: Bundle) -> Service:
    return Service(Settings(folder, hosts=frozenset({"models.example"})), bundle)


def ask(service: Service, method: str, path: str, **options: Any) -> httpx.Response:
    """The answer of the application to one request."""

    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(service, print))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.request(method, path, **options)

    return asyncio.run(one())


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_name_that_is_a_script_is_text_in_the_page(service: Service) -> None:
    answer = ask(service, "GET", "/docs")
    page = Elements(answer.text)
    assert TITLE in page.text
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert [list(each) for each in scripts] == [["src"], ["src"]]
    assert not [name for _, attributes in page.elements for name in attributes if name[:2] == "on"]
    for each in scripts:
        asset = ask(service, "GET", f"/{each['src']}")
        assert asset.status_code == 200
        assert "javascript" in asset.headers["content-type"]
    parts = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert (parts["default-src"], parts["script-src"], parts["connect-src"]) == (
        "'none'",
        "'self'",
        "'self'",
    )
    assert parts["frame-ancestors"] == "'none'"
    # Nothing that the policy allows is elsewhere.
    assert not re.search(r"https?:|\*", answer.headers["content-security-policy"])


def test_names_in_descriptions_are_text_in_their_markdown(service: Service) -> None:
    described = ask(service, "GET", "/openapi.json").json()
    operation = described["paths"]["/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    columns = content["schema"]["properties"]["rows"]["items"]["properties"]
    text = columns["\x1b]0;x\x07"]["description"]
    page = Elements(MarkdownIt("commonmark", {"html": True}).render(text))
    assert {tag for tag, _ in page.elements} == {"p"}
    assert page.text.strip() == "in training: " + " ".join(", ".join(NAMES).split())


def test_nothing_but_the_page_is_taken_for_one(service: Service) -> None:
    script = "/<script>alert(1)</script>"
    for method, path in (
        *(("GET", path) for path in ("/openapi.json", "/example", "/metrics", "/v2", script)),
        *(("GET", f"/docs/assets{script}"), ("POST", "/predict"), ("GET", f"/v2/models{script}")),
    ):
        answer = ask(service, method, path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].split(";")[0] in ("application/json", "text/plain")


def test_what_a_terminal_obeys_is_written_out(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    _say(_introduction(service, "http://localhost:1"))
    said = capsys.readouterr().out
    assert "\\x1b]0;x\\x07" in said
    assert not [c for c in said if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *[(name, 200) for name in ("localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000")],
        *[(name, 200) for name in ("a.localhost:1", "localhost.", "Models.example:80", "10.0.0.7")],
        *[(name, 421) for name in ("a.example", "a.example:8000", "localhost.a.example", "")],
        *[(name, 421) for name in ("127.0.0.1.a.example:8000", "x.models.example", "[a]", "é")],
    ],
)
def test_a_page_that_points_its_name_here_reads_nothing(
    service: Service, host: str, status: int
) -> None:
    headers = {"Host": host.encode()}
    for path in ("/docs", "/example", "/metrics", "/v2/health/live"):
        answer = ask(service, "GET", path, headers=headers)
        assert answer.status_code == status
        assert status == 200 or list(answer.json()) == ["error"]


def test_a_server_is_known_by_its_own_names() -> None:
    known = known_hosts("A.example", ("b.example",), loopback=True)
    assert known == {"a.example", "b.example"}
    assert socket.gethostname().lower() in known_hosts("0.0.0.0", (), loopback=False)


def test_no_other_sites_page_may_ask(service: Service) -> None:
    row = {IMAGE: 1.0, "\x1b]0;x\x07": "a"}
    content = json.dumps({"rows": [row]})
    for origin, site, status in (
        ("http://a.example", "cross-site", 403),
        ("http://localhost:3000", "same-site", 403),
        ("http://localhost", "same-origin", 200),
    ):
        headers = {"Origin": origin, "Sec-Fetch-Site": site, "Content-Type": "text/plain"}
        answer = ask(service, "POST", "/predict", content=content, headers=headers)
        assert answer.status_code == status
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        before = ask(service, "OPTIONS", "/predict", headers=asked)
        assert before.status_code == 405
        for each in (answer, before):
            assert not [name for name in each.headers if name.startswith("access-control")]


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


def test_onnx_runtime_finds_its_telemetry_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it keeps when left alone differs from machine to machine: so a stand-in looks."""
    code = "import os\nseen = os.environ.get('ORT_DISABLE_TELEMETRY')\n"
    (tmp_path / "onnxruntime.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    del sys.modules["onnxruntime"]
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert import_onnxruntime().seen == "1"


def test_the_runtime_is_imported_in_one_place_alone() -> None:
    found = [
        path.name
        for path in (ROOT / "pipeline").rglob("*.py")
        if re.search(r"^ *import onnxruntime|^from onnxruntime", path.read_text(), re.MULTILINE)
    ]
    assert found == ["bundle.py"]


def test_a_log_says_what_it_has_left_out() -> None:
    now = 0.0
    limit = RateLimit(lambda: now)

    def record(line: int, level: int = logging.WARNING) -> logging.LogRecord:
        return logging.LogRecord("x", level, "file.py", line, "said %d", (7,), None)

    assert sum(limit.filter(record(1)) for _ in range(1000)) == MOST
    assert limit.filter(record(2))
    assert all(limit.filter(record(1, logging.INFO)) for _ in range(100))
    now = PERIOD_SECONDS
    later = record(1)
    assert limit.filter(later)
    assert later.getMessage() == f"said 7 ({1000 - MOST} more like it were left out)"


def test_a_process_without_a_file_to_spare_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed, num in ((128, 64), (10**6, 100), (resource.RLIM_INFINITY, 100)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, most=allowed: (most, most))
        assert max_connections(100) == num
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(UserError, match=r"may have 64 files open.*\n.*ulimit -n 164"):
        max_connections(100)


def test_a_name_that_no_path_can_hold_is_refused(service: Service) -> None:
    for name in ("a/b", "<script>", "", "a b"):
        with pytest.raises(UserError, match="--name"):
            command.serve(replace(service.settings, name=name), "127.0.0.1", 0, access_log=False)
