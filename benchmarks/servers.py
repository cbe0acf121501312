"""The servers that `benchmarks.serve` loads, the models that they serve, and the load, by wrk."""

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil

from pipeline.common.ports import choose_port
from tests.conftest import ROOT, Project
from tests.support.samples import run_stages, small_project

START_SECONDS = 60
TARGETS = {"breast_cancer": "diagnosis", "digits": "label"}
LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[%s]==]
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "failed": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Server:
    """One that runs: its address and its process."""

    url: str
    pid: int


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests a second, milliseconds, and requests that failed in any way.

    `per_cpu_second`: requests in a second of the server's processor time. On an idle machine it is
    the rate of a server that is busy all the time; with other work on the cores it moves less.
    """

    per_second: float
    p50: float
    p99: float
    failed: int
    requests: int
    per_cpu_second: float


def train(folder: Path, name: str, changes: dict[str, object]) -> tuple[Project, list[dict]]:
    """A small training on bundled data; the project, and its rows without gaps, keys and target."""
    table = pl.read_parquet(ROOT / f"data/raw/{name}.parquet")
    target = TARGETS[name]
    settings = {"prepare.target": target, "train.epochs": 2, **changes}
    key = "id" if "id" in table.columns else None
    project = small_project(folder, table, {**settings, "prepare.key": key})
    run_stages(project, "prepare", "build", "tune", "train", "infer")
    columns = table.drop([target, *([] if key is None else [key])])
    return project, columns.drop_nulls().head(256).to_dicts()


@contextmanager
def serving(project: Project, model: Path | None = None) -> Iterator[Server]:
    """`reprise serve` of the project's model."""
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "serve"]
    command += ["--port", "0", "--model", str(model or project.path / "data/infer")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        # What it says of reloads is not wanted, and must not fill the pipe.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        wait_for(f"{url}/v2/health/ready")
        yield Server(url, process.pid)
    finally:
        process.terminate()
        assert process.wait(START_SECONDS) == 0


@contextmanager
def minimal(project: Project) -> Iterator[Server]:
    """The server to compare with."""
    port = choose_port(8700, "", fixed=False)
    command = [sys.executable, "-m", "benchmarks.minimal_server", "data", str(port)]
    process = subprocess.Popen(
        command,
        cwd=project.path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/openapi.json")
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def wait_for(url: str) -> None:
    """Wait until a server answers."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url).read()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def post(url: str, body: bytes) -> dict:
    """The answer to rows."""
    request = urllib.request.Request(f"{url}/predict", data=body, method="POST")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def write_script(path: Path, rows: list[dict], num_rows: int) -> Path:
    """wrk's script that posts the first `num_rows` of `rows`."""
    path.write_text(LUA % json.dumps({"rows": rows[:num_rows]}))
    return path


def run_wrk(server: Server, script: Path, connections: int, seconds: float) -> Load:
    """Load a server for some seconds."""
    command = ["wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds:.0f}s", "--timeout", "10s"]
    command += ["--script", str(script), f"{server.url}/predict"]
    before = cpu_seconds(server)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cpu = cpu_seconds(server) - before
    found = json.loads(re.findall(r"RESULT (.*)", done.stdout)[0])
    requests = found["requests"]
    rate = requests / found["seconds"]
    return Load(rate, found["p50"], found["p99"], found["failed"], requests, requests / cpu)


def cpu_seconds(server: Server) -> float:
    """The processor time that a server has taken."""
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)
