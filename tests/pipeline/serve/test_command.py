"""`reprise serve` in a process of its own: how it starts and ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from pipeline.serve.command import _say
from tests.conftest import ROOT, Project, project_environment
from tests.support.serving import SECONDS, command, place, serving, started


def test_the_command_serves_reloads_and_finishes_what_is_under_way(
    project: Project, other: Path, tmp_path: Path
) -> None:
    place(project.path / "data/infer", tmp_path)
    with serving(tmp_path) as (process, url, said):
        answer = subprocess.run(
            said.splitlines()[-1], shell=True, capture_output=True, text=True, timeout=SECONDS
        )
        assert json.loads(answer.stdout)["predictions"][0]["prediction"] in ("ill", "well")

        place(other, tmp_path)
        end = time.monotonic() + SECONDS
        while httpx.get(f"{url}/example").json()["rows"][0].keys() != {"town", "smoker"}:
            assert time.monotonic() < end
            time.sleep(0.1)

        body = b'{"rows": [{"town": "Oslo", "smoker": true}]}'
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            head = (
                f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body[:10])
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{url}/v2/health/ready")
            assert process.poll() is None
            connection.sendall(body[10:])
            received = connection.recv(65536)
            while b'"predictions"' not in received:
                received += connection.recv(65536) or pytest.fail(received.decode())
        assert received.startswith(b"HTTP/1.1 200")
        assert process.wait(SECONDS) == 0
        assert process.stdout is not None
        rest = process.stdout.read()
        assert rest.splitlines()[-1] == "stopped"
        assert "in place of" in rest


# The command with a new model that is never read to its end.
ENDLESS = """
import time
from pipeline.serve import command, service
service.LOOK_SECONDS, command.GRACE_SECONDS = 0.05, 0.3
def load(folder):
    print("reading", flush=True)
    time.sleep(600)
service.load_bundle = load
from pipeline.cli import main
main()
"""


def test_a_thread_that_never_comes_back_keeps_nobody_from_the_end(
    project: Project, tmp_path: Path
) -> None:
    place(project.path / "data/infer", tmp_path)
    arguments = ["serve", "--port", "0", "--model", str(tmp_path)]
    with started([sys.executable, "-c", ENDLESS, *arguments]) as (process, _, _):
        assert process.stdout is not None
        place(project.path / "data/infer", tmp_path)
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert "a thread was still at work" in process.stdout.read()


def test_it_does_not_start_without_what_it_needs(project: Project, tmp_path: Path) -> None:
    def refused(*arguments: str) -> str:
        done = subprocess.run(
            command(*arguments),
            cwd=ROOT,
            env=project_environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "'dvc repro' makes it" in refused("--model", str(tmp_path))
    model = str(project.path / "data/infer")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port), "--model", model)
        assert f"port {port} can't be used" in said
        assert f"process {os.getpid()}" in said


def test_the_server_loads_neither_torch_nor_polars() -> None:
    code = "import sys, pipeline.serve.command; print({'torch', 'polars'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_closed_pipe_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def closed(*words: object, **__: object) -> None:
        tried.extend(words)
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    _say("serving another model")
    assert tried == ["serving another model"]
