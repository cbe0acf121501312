"""Minutes of load with a new model every 3 s: `python -m benchmarks.reloads 10`; needs wrk.

The two files are replaced as DVC does it, which deletes them first; every answer must be there, and
must be that of the model that it names.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from benchmarks.servers import post, run_wrk, serving, train, write_script

FILES = ("model.onnx", "signature.json")
CONNECTIONS = 16
RELOAD_SECONDS = 3.0


def main() -> None:
    """Load, reload, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("minutes", type=float)
    minutes = parser.parse_args().minutes
    if shutil.which("wrk") is None:
        sys.exit("there is no wrk: it is a package of Debian and of others by that name")
    with tempfile.TemporaryDirectory() as folder:
        soak(Path(folder), minutes)


def soak(folder: Path, minutes: float) -> None:
    """Load with reloads of another model; print what came of it, and fail at a failed request."""
    model: dict[str, object] = {"build.model": {"name": "mlp", "width": 64}}
    bundles: list[Path] = []
    for seed in (0, 1):
        project, rows = train(folder / str(seed), "breast_cancer", {**model, "seed": seed})
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
        try:
            load = run_wrk(server, script, CONNECTIONS, minutes * 60)
        finally:
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


if __name__ == "__main__":
    main()
