"""A service in this process and in its own, and what is sent to it."""

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from pipeline.serve.app import make_app
from pipeline.serve.bundle import FILES, Bundle
from pipeline.serve.codec.signature import Input, Output, Signature
from pipeline.serve.service import Service
from tests.conftest import ROOT, project_environment
from tests.support.inferred import TABLE

# Names that nobody would give, of a target, a column and categories.
TITLE = "</title><script>alert(1)</script>"
IMAGE = '<img src=x onerror="alert(2)">'
NAMES = [IMAGE, "![a](http://a.example/a.png)", "[b](javascript:alert(3))", "`c` *d*\n# e"]
ROWS = [json.loads(json.dumps(row)) for row in TABLE.drop("y").to_dicts()]
SECRET = "0123456789abcdef"
SECONDS = 60


def ask(
    service: Service, method: str, path: str, body: object = None, **options: Any
) -> httpx.Response:
    """The answer of the application to one request."""

    async def one() -> httpx.Response:
        async with client(service) as http:
            content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            return await http.request(method, path, content=content, **options)

    return asyncio.run(one())


@contextlib.asynccontextmanager
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(service, print))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


def signature(*inputs: Input) -> Signature:
    return Signature(
        model_md5="m",
        onnx_md5="o",
        task="regression",
        target="y",
        key=None,
        classes=None,
        inputs=list(inputs),
        outputs=[Output(name="prediction", type="float64", shape=["rows"])],
    )


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as the protocol's inputs."""
    data = {name: [row[name] for row in rows] for name in ("size", "town", "smoker", "picture")}
    data["smoker"] = [None if value is None else float(value) for value in data["smoker"]]
    kinds = {"size": "FP64", "town": "BYTES", "smoker": "FP64", "picture": "FP32"}
    return [
        {
            "name": name,
            "datatype": kinds[name],
            "shape": [len(rows), *([2, 3] if name == "picture" else [])],
            "data": values,
        }
        for name, values in data.items()
    ]


class Slow:
    """A session that notes the rows of each run, and takes its time."""

    def __init__(self, seconds: float = 0.05, *, fails: bool = False) -> None:
        self.seconds, self.fails, self.runs = seconds, fails, list[int]()

    def run(self, _: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.runs.append(len(feeds["x"]))
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError("no memory")
        return [feeds["x"] * 2]


def with_session(bundle: Bundle, session: object, inline_rows: int = 0) -> Bundle:
    return replace(bundle, session=session, inline_rows=inline_rows)


def rows_of(*values: int) -> dict[str, np.ndarray]:
    return {"x": np.array(values)}


class Sleepy:
    """The model, slowly."""

    def __init__(self, session: Any) -> None:
        self.session = session

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> Any:
        time.sleep(0.5)
        return self.session.run(names, feeds)


def place(source: Path, target: Path, *names: str) -> None:
    for name in names or FILES:
        shutil.copy(source / name, target / f".{name}.tmp")
        (target / f".{name}.tmp").replace(target / name)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from pipeline.cli import main; main()", "serve", *arguments]


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The command in a process of its own; its address and the rest of what it says first."""
    with started(command("--port", "0", "--model", str(folder))) as found:
        yield found


@contextlib.contextmanager
def started(arguments: list[str]) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=project_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].strip().startswith("curl"):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        yield process, lines[0].split()[0], "".join(lines)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
