"""`reprise serve` under load, beside a minimal FastAPI with eager PyTorch.

    python -m benchmarks.serve    # about two minutes on two cores; needs wrk

Both servers are up at the same time and loaded in turns, one worker each, with the same JSON in
and out; what counts are the ratios.
"""

import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.servers import Load, minimal, post, run_wrk, serving, train, write_script

TURNS = 11
TURN_SECONDS = 2
# Rows of a request → connections at once.
LOADS = {1: 16, 256: 8}
CASES = {
    "table: 30 numbers, mlp": ("breast_cancer", {"build.model": {"name": "mlp", "width": 64}}),
    "digits: 8 x 8, cnn": (
        "digits",
        {"build.model": {"name": "cnn", "channels": [16, 32], "width": 64, "dropout": 0.0}},
    ),
}


def main() -> None:
    """Measure and print."""
    if shutil.which("wrk") is None:
        sys.exit("there is no wrk: it is a package of Debian and of others by that name")
    with tempfile.TemporaryDirectory() as folder:
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


def check_equal(ours: str, theirs: str, rows: list[dict]) -> None:
    """Both servers must say the same of all rows."""
    body = json.dumps({"rows": rows}).encode()
    pairs = zip(post(ours, body)["predictions"], post(theirs, body)["predictions"], strict=True)
    for our, their in pairs:
        assert our["prediction"] == their["prediction"]
        for name, chance in their["probabilities"].items():
            assert abs(our["probabilities"][name] - chance) < 1e-5


if __name__ == "__main__":
    main()
