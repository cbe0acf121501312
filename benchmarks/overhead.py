"""The time that the pipeline takes, and the part of it that is not the stages' own work.

    python -m benchmarks.overhead            # about three minutes on two cores

Three figures, each a ratio or a difference inside this one run:

- cold: `dvc repro` in a fresh clone, and the share of it outside the stages' processes;
- no-op: `dvc repro` with nothing to do, over that of a bare DVC project with six `true` stages;
- start: from a stage's process start to the first line of its own work, less the bare import of
  the libraries that it declares.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

from tests.conftest import copy_project

STAGES = ("prepare", "build", "tune", "train", "evaluate", "infer")
ROUNDS = 5

# A `python` before the real one on PATH: notes how long each stage's process took.
SHIM = """#!/bin/sh
start=$(date +%s.%N)
"{python}" "$@"
code=$?
echo "$2 $start $(date +%s.%N)" >> "{log}"
exit $code
"""

# Starts a stage as `python -m` does, up to where its own function would be called.
FIRST_LINE = """
import runpy, sys
import stages.runtime.stage as stage
start = stage.run_stage
def stop(params, out):
    raise SystemExit(0)
stage.run_stage = lambda name, work: start(name, stop)
runpy.run_module("stages." + sys.argv[1], run_name="__main__")
"""

IMPORT_NAMES = {
    "great-expectations": "great_expectations",
    "pillow": "PIL.Image",
    "ruamel-yaml": "ruamel.yaml",
    "scikit-learn": "sklearn.metrics",
    "tensorboard": "torch.utils.tensorboard",
    "safetensors": "safetensors.torch",
}


def main() -> None:
    """Measure all three and print them."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "project").mkdir()
        project = copy_project(Path(folder) / "project").path
        cold(project, Path(folder))
        no_op(project, bare_project(Path(folder) / "bare"))
        starts(project)


def cold(project: Path, folder: Path) -> None:
    """Time the first `dvc repro` and the stages inside it."""
    log = folder / "stages.log"
    shim = folder / "bin" / "python"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable, log=log), encoding="utf-8")
    shim.chmod(0o755)
    seconds = timed(["dvc", "repro"], project, path_first=shim.parent)
    inside = 0.0
    print(f"\ncold dvc repro: {seconds:.1f} s (bar: 60)")
    for line in log.read_text(encoding="utf-8").splitlines():
        name, start, end = line.split()
        inside += float(end) - float(start)
        print(f"  {name:16} {float(end) - float(start):5.1f} s")
    print(f"  outside the stages' processes: {(seconds - inside) / seconds:.0%}")


def no_op(project: Path, bare: Path) -> None:
    """Time `dvc repro` with nothing to do, in turns with the bare project's."""
    reprise, baseline = in_turns(
        lambda: timed(["dvc", "repro"], project), lambda: timed(["dvc", "repro"], bare)
    )
    print(f"\nno-op dvc repro: {reprise:.2f} s, bare DVC {baseline:.2f} s: ", end="")
    print(f"{reprise / baseline:.2f} times (bar: 1.35)")


def starts(project: Path) -> None:
    """Time each stage up to its first own line, in turns with the bare imports."""
    print("\nstart of each stage's own work, beyond importing its libraries (bar: 1.0 s)")
    entries = YAML(typ="safe").load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in STAGES:
        libraries = [
            library
            for entry in entries[stage]["params"]
            if isinstance(entry, dict)
            for library in entry["stages/versions.yaml"]
        ]
        names = ", ".join(IMPORT_NAMES.get(library, library) for library in libraries)
        first = [sys.executable, "-c", FIRST_LINE, stage]
        bare = [sys.executable, "-c", f"import {names}"]
        reprise, baseline = in_turns(
            lambda first=first: timed(first, project), lambda bare=bare: timed(bare, project)
        )
        print(
            f"  {stage:10} {reprise:5.2f} s, imports {baseline:5.2f} s: {reprise - baseline:+.2f} s"
        )


def in_turns(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    """The medians of both over a few rounds; the machine's moods hit both alike."""
    pairs = [(first(), second()) for _ in range(ROUNDS)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def timed(command: list[str], folder: Path, path_first: Path | None = None) -> float:
    """Seconds of wall time that a command takes; it must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    path = path if path_first is None else f"{path_first}{os.pathsep}{path}"
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed\n{done.stdout}\n{done.stderr}")
    return seconds


def bare_project(target: Path) -> Path:
    """Six stages of `true`, each with one dependency, one parameter and one output."""
    target.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=target, check=True)
    timed(["dvc", "init", "--quiet"], target)
    timed(["dvc", "config", "core.analytics", "false"], target)
    lines = ["stages:"]
    before = "start"
    (target / before).touch()
    for stage in STAGES:
        lines += [f"  {stage}:", f"    cmd: cp {before} {stage}.out", f"    deps: [{before}]"]
        lines += [f"    params: [{stage}]", f"    outs: [{stage}.out]"]
        before = f"{stage}.out"
    (target / "dvc.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    params = "".join(f"{stage}: 1\n" for stage in STAGES)
    (target / "params.yaml").write_text(params, encoding="utf-8")
    timed(["dvc", "repro"], target)
    return target


if __name__ == "__main__":
    main()
