"""What columns cost: the processor time of each stage for more and more columns of numbers.

    python -m benchmarks.columns [300 1500 3000]

A linear regression on 600 rows, no search, one epoch; every stage in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from tests.support.samples import small_project

ROWS = 600
STAGES = ("prepare", "build", "tune", "train", "evaluate", "infer")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("columns", type=int, nargs="*", default=[300, 1500, 3000])
    print(f"| columns | {' | '.join(STAGES)} |")
    print("|---|" + "---|" * len(STAGES))
    for num_columns in parser.parse_args().columns:
        with tempfile.TemporaryDirectory() as folder:
            seconds = _measure(Path(folder) / "p", num_columns)
        print(
            f"| {num_columns:,} | " + " | ".join(f"{s:.1f} s" for s in seconds) + " |", flush=True
        )


def _measure(folder: Path, num_columns: int) -> list[float]:
    values = np.random.default_rng(0).normal(size=(ROWS, num_columns))
    table = pl.DataFrame({f"x{number}": values[:, number] for number in range(num_columns)})
    table = table.with_columns(y=pl.Series(values @ np.linspace(0, 1, num_columns)))
    changes = {
        "prepare.key": None,
        "build.model": {"name": "linear"},
        "train.epochs": 1,
        "train.loss": {"name": "MSELoss"},
        "evaluate.metrics": ["rmse", "r2"],
        "evaluate.gates": {},
    }
    project = small_project(folder, table, changes)
    return [_seconds(project.path, stage) for stage in STAGES]


def _seconds(folder: Path, stage: str) -> float:
    """Of the stage's process, its start and its imports included."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env={**os.environ, "REPRISE_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = os.times()
    own = after.children_user - before.children_user
    return own + after.children_system - before.children_system


if __name__ == "__main__":
    main()
