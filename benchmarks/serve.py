"""`reprise serve` under load, beside a minimal FastAPI with eager PyTorch; and its reloads.

    python -m benchmarks.serve              # about two minutes on two cores; needs wrk
    python -m benchmarks.serve --soak 10    # ten minutes of load with a new model every 3 s

Both servers are up at the same time and loaded in turns, one worker each, with the same JSON in
and out; what counts are the ratios. The soak replaces the two files as DVC does, which deletes
them first; every answer must be there, and must be that of the model that it names.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
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

FILES = ("model.onnx", "signature.json")
TURNS = 11
TURN_SECONDS = 2
START_SECONDS = 60
RELOAD_SECONDS = 3.0
# Rows of a request → connections at once.
LOADS = {1: 16, 256: 8}
CASES = {
    "table: 30 numbers, mlp": ("breast_cancer", {"build.model": {"name": "mlp", "width": 64}}),
    "digits: 8 x 8, cnn": (
        "digits",
        {"build.model": {"name": "cnn", "channels": [16, 32], "width": 64, "dropout": 0.0}},
    ),
}
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


def main() -> None:
    """Measure, or soak, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    minutes = parser.parse_args().soak
    if shutil.which("wrk") is None:
        sys.exit("there is no wrk: it is a package of Debian and of others by that name")
    with tempfile.TemporaryDirectory() as folder:
        if minutes is not None:
            soak(Path(folder), minutes)
        else:
            measure(Path(folder))


def measure(folder: Path) -> None:
    """Both servers in turns, for each case and load; printed as a table."""
    print("| case | rows | requests/s, p50, p99 in ms | theirs | ratio | of processor time |")
    print("|---|---|---|---|---|---|", flush=True)
    for number, (case, (name, changes)) in enumerate(CASES.items()):
        project, rows = train(folder / str(number), name, changes)
        with serving(project) as ours, minimal(project) as theirs:
            check_equal(ours.url, theirs.url, rows)
            for num_rows, connections in LOADS.items():
                script = write_script(folder / "post.lua", rows, num_rows)
                turns = [
                    [run_wrk(each, script, connections, TURN_SECONDS) for each in (ours, theirs)]
                    for _ in range(TURNS)
                ]
                print(f"| {case} | {num_rows} | {_shown(turns)} |", flush=True)


def _shown(turns: list[list[Load]]) -> str:
    """Medians of both, and of the ratios with their quartiles."""
    assert all(load.failed == 0 for turn in turns for load in turn)
    cells = []
    for loads in zip(*turns, strict=True):
        rate, p50, p99 = (
            statistics.median(getattr(load, field) for load in loads)
            for field in ("per_second", "p50", "p99")
        )
        cells.append(f"{rate:.0f}, {p50:.1f}, {p99:.1f}")
    for field in ("per_second", "per_cpu_second"):
        ratios = [getattr(ours, field) / getattr(theirs, field) for ours, theirs in turns]
        low, median, high = statistics.quantiles(ratios)
        cells.append(f"**{median:.1f}** ({low:.1f} to {high:.1f})")
    return " | ".join(cells)


def soak(folder: Path, minutes: float) -> None:
    """Load with reloads of another model; print what came of it, and fail at a failed request."""
    name, changes = CASES["table: 30 numbers, mlp"]
    bundles: list[Path] = []
    for seed in (0, 1):
        project, rows = train(folder / str(seed), name, {**changes, "seed": seed})
        bundles.append(project.path / "data/infer")
    served = folder / "served"
    shutil.copytree(bundles[0], served)
    script = write_script(folder / "post.lua", rows, 1)
    ended = threading.Event()
    wrong: list[str] = []
    with serving(project, served) as server:
        url = server.url
        body = json.dumps({"rows": rows[:8]}).encode()
        threads = [
            threading.Thread(target=_replace, args=(served, bundles, ended)),
            threading.Thread(target=_ask, args=(url, body, ended, wrong)),
        ]
        for thread in threads:
            thread.start()
        load = run_wrk(server, script, LOADS[1], minutes * 60)
        ended.set()
        for thread in threads:
            thread.join()
        text = urllib.request.urlopen(f"{url}/metrics").read().decode()
    taken, broken = (
        float(re.findall(rf'reprise_reloads_total{{result="{result}"}} (\S+)', text)[0])
        for result in ("taken", "broken")
    )
    print(f"{load.requests} requests in {minutes:g} minutes, {load.failed} failed; ", end="")
    print(f"{taken:.0f} reloads, {broken:.0f} broken; p50 {load.p50:.1f} ms, p99 {load.p99:.1f} ms")
    print(f"answers that are not of the model that they name, or missing: {len(wrong)}")
    if load.failed or wrong or broken or taken < minutes * 60 / RELOAD_SECONDS / 2:
        sys.exit(f"the soak failed {wrong[:3]}")


def _replace(served: Path, bundles: list[Path], ended: threading.Event) -> None:
    """Put the other model there again and again: delete both files, then place one by one."""
    number = 0
    while not ended.wait(RELOAD_SECONDS):
        number += 1
        for name in FILES:
            (served / name).unlink()
        for name in FILES if number % 2 else reversed(FILES):
            # Half written for a while, as a copy from a cache over the network is.
            content = (bundles[number % 2] / name).read_bytes()
            with (served / name).open("wb") as file:
                file.write(content[: len(content) // 2])
                file.flush()
                ended.wait(0.05)
                file.write(content[len(content) // 2 :])


def _ask(url: str, body: bytes, ended: threading.Event, wrong: list[str]) -> None:
    """Ask some times a second; each model must always answer the same."""
    known: dict[str, list[float]] = {}
    while not ended.wait(0.05):
        try:
            answer = post(url, body)
        except OSError as error:
            wrong.append(str(error))
            continue
        probabilities = [c for p in answer["predictions"] for c in p["probabilities"].values()]
        before = known.setdefault(answer["model"], probabilities)
        if max(abs(a - b) for a, b in zip(before, probabilities, strict=True)) > 1e-6:
            wrong.append(answer["model"])
    if len(known) != 2:
        wrong.append(f"{len(known)} models answered")


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


def check_equal(ours: str, theirs: str, rows: list[dict]) -> None:
    """Both servers must say the same of all rows."""
    body = json.dumps({"rows": rows}).encode()
    pairs = zip(post(ours, body)["predictions"], post(theirs, body)["predictions"], strict=True)
    for our, their in pairs:
        assert our["prediction"] == their["prediction"]
        for name, chance in their["probabilities"].items():
            assert abs(our["probabilities"][name] - chance) < 1e-5


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


if __name__ == "__main__":
    main()
