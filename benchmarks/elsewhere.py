"""How much longer a stage takes in a work pool than here.

    python -m benchmarks.elsewhere        # about four minutes on two idle cores

A stage of two seconds with 20 MB of input and of output, by `reprise run` in turns here and in a
pool whose one worker works in a clone of its own on this machine: a real Prefect server, git by
path, a DVC remote in a folder. Seconds are those that `reprise run` shows for the stage.
"""

import json
import os
import re
import statistics
import tempfile
from contextlib import chdir
from pathlib import Path

from benchmarks.overhead import timed
from pipeline.server.access import CLIENT_AUTH
from tests.conftest import Project
from tests.pipeline.elsewhere.places import Place, clone_for_worker, make_place, worker
from tests.support.dags import make_dag

ROUNDS = 5
MEGABYTES = 20
BAR_SECONDS = 15.0
STAGES = {
    "before": {"cmd": f"head -c {MEGABYTES}M /dev/urandom > before.bin", "outs": ["before.bin"]},
    "big": {"cmd": "sleep 2 && cat before.bin seed > big.bin", "deps": ["before.bin", "seed"]},
}


def main() -> None:
    """Measure and print it."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_dag(Path(folder) / "project", STAGES)
        project.edit("dvc.yaml", "- big.out", "- big.out\n    - big.bin")
        project.edit("dvc.yaml", "- before.out", "- before.out\n    - before.bin")
        timed(["reprise", "up", "--no-worker", "--no-tensorboard"], project.path)
        try:
            with chdir(project.path):  # where what logs in is found
                measure(project)
        finally:
            timed(["reprise", "down"], project.path)


def measure(project: Project) -> None:
    """Run the stage here and in the pool, in turns."""
    services = json.loads(Path(".reprise/up.json").read_text(encoding="utf-8"))["services"]
    address = next(each["address"] for each in services if each["name"] == "server")
    auth = Path(".reprise/auth").read_text(encoding="utf-8").strip()
    (project.path / "seed").write_text("start\n", encoding="utf-8")
    place = make_place(project, f"{address}/api")
    variables = {CLIENT_AUTH: auth, "PREFECT_WORKER_QUERY_SECONDS": "3"}
    here, there = [], []
    with worker(place, clone_for_worker(place), **variables):
        for number in range(ROUNDS + 1):
            here.append(seconds(place, f"here {number}", "", auth))
            there.append(seconds(place, f"there {number}", place.pool, auth))
    # The first of each fills caches: compiled modules, the inputs at the worker's.
    more = [far - near for far, near in zip(there[1:], here[1:], strict=True)]
    middle = statistics.median
    print(
        f"here {middle(here[1:]):.1f} s, in a pool {middle(there[1:]):.1f} s: "
        f"{middle(more):+.1f} s ({min(more):+.1f} to {max(more):+.1f}; bar: {BAR_SECONDS:+g}); "
        f"the first time {there[0] - here[0]:+.1f} s; load {os.getloadavg()[0]:.1f}"
    )


def seconds(place: Place, seed: str, pool: str, auth: str) -> float:
    """The seconds of the stage `big`, as the run shows them."""
    (place.project.path / "seed").write_text(f"{seed}\n", encoding="utf-8")
    variables = {"REPRISE_WORK_POOL_big": pool, CLIENT_AUTH: auth, "PREFECT_API_URL": place.url}
    said = place.project.run("reprise", "run", "big", env=variables).stdout
    found = re.search(r"big +│ ran in ([\d.]+) s", said)
    assert found is not None, said
    return float(found[1])


if __name__ == "__main__":
    main()
