"""What more workers of a cluster bring: prepare with three of them beside one.

    python -m benchmarks.partitions                       # 10 million rows
    python -m benchmarks.partitions --rows 40_000_000

The table and the suite of `benchmarks.prepare`. The scheduler and the workers, of one thread each,
are processes of this machine, and so is the stage; the outputs of both runs must be the same bytes.
Seconds by the clock, and of the processor: of the stage, and of its workers. With nothing else on
two cores the clock says what the workers bring. Beside other work, which takes its share of the
cores, it does not; so there is the ratio, too, that the seconds of the processor allow on two
cores: of one worker, all of its seconds and the stage's, one after the other; of several, the
workers' on two cores, and then the stage's on one.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import psutil

from benchmarks.prepare import run, write_table
from tests.conftest import copy_project
from tests.support.cluster import Cluster, start_cluster

ROWS, CORES = 10_000_000, 2
READ_BYTES = 1 << 22
# On the disk: of 40 million rows the folder takes some 20 GB, and `/dev/shm` is memory.
DISK = Path("/var/tmp")
HEAD = (
    *("workers", "s", "processor s of the stage", "of the workers", "peak MB of the stage"),
    *("of a worker", "ratio", "by the processor", "load before"),
)


def main() -> None:
    """Measure and print rows of RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 3])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=DISK) as name:
        folder = Path(name)
        project = copy_project(folder / "project")
        table = project.path / "data/raw/rows.csv"
        write_table(table, options.rows)
        run(project, ("reprise", "init", str(table), "--target", "y", "--force"))
        print(f"{options.rows:,} rows, {table.stat().st_size / 1e9:.2f} GB of CSV\n")
        print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        base, base_work, digest = 0.0, 0.0, ""
        for number in options.workers:
            (folder / str(number)).mkdir()
            load = os.getloadavg()[0]
            with start_cluster(folder / str(number), number, project.path) as cluster:
                os.environ["REPRISE_DASK"] = cluster.address
                before, _ = _measure_workers(cluster)
                stage = (sys.executable, "-m", "stages.prepare")
                seconds, processor, peak = run(project, stage)
                after, worker_peak = _measure_workers(cluster)
                used = after - before
            work = processor + used / min(number, CORES)
            base, base_work = base or seconds, base_work or work
            found = _digest(project.path / "data/prepare")
            assert digest in ("", found), "the outputs differ"
            digest = found
            row = [f"{number}", f"{seconds:.1f}", f"{processor:.1f}", f"{used:.1f}"]
            row += [f"{peak:,.0f}", f"{worker_peak:,.0f}", f"{base / seconds:.2f}"]
            row += [f"{base_work / work:.2f}", f"{load:.1f}"]
            print(f"| {' | '.join(row)} |", flush=True)


def _measure_workers(cluster: Cluster) -> tuple[float, float]:
    """Seconds of the processor of all workers, and the highest peak of one in MB."""
    seconds, peak = 0.0, 0.0
    for process in cluster.workers.values():
        times = psutil.Process(process.pid).cpu_times()
        seconds += times.user + times.system
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        peak = max(peak, int(line.split()[1]) / 1000)
    return seconds, peak


def _digest(folder: Path) -> str:
    digest = hashlib.blake2b()
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        digest.update(str(file.relative_to(folder)).encode())
        with file.open("rb") as content:
            while piece := content.read(READ_BYTES):
                digest.update(piece)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
