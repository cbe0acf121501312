"""What it costs to bring a long table in: prepare beside a bare scan, and beside scikit-learn.

    python -m benchmarks.prepare                                  # a million rows
    python -m benchmarks.prepare --rows 10_000_000 --no-sklearn   # beyond what pandas holds

A CSV file of 20 mixed columns is made (a key, eight numbers, three whole numbers, four columns of
categories, a truth, a time, a column with gaps, an amount to predict). In turns, each a process of
its own: `reprise init`; prepare, with the suite that init drafted; Polars' scan into an Arrow file,
which looks at nothing; and the same work by pandas and scikit-learn: read, split, fit on the train
rows, encode, save. Seconds by the clock and of the processor, and the peak of memory, which counts
the pages of files that are mapped.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from tests.conftest import Project, copy_project, project_environment

ROWS, ROWS_AT_ONCE = 1_000_000, 500_000
NUM_CATEGORIES = (5, 30, 300, 900)
FIRST, LAST = 1_500_000_000, 1_700_000_000

POLARS = """
import sys, polars as pl
pl.scan_csv(sys.argv[1]).sink_ipc(sys.argv[2])
"""
SKLEARN = """
import sys
import numpy as np
import pandas as pd
from pathlib import Path
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

table = pd.read_csv(sys.argv[1], parse_dates=["when"])
seconds = table["when"].astype("int64") // 10**9
table["when"] = seconds
for name, period in (("year", 31556952), ("week", 604800), ("day", 86400)):
    angle = 2 * np.pi * (seconds % period) / period
    table[f"sin_{name}"], table[f"cos_{name}"] = np.sin(angle), np.cos(angle)
target, key = table.pop("y"), table.pop("id")
train, rest = train_test_split(np.arange(len(table)), test_size=0.35, random_state=0)
validation, test = train_test_split(rest, test_size=0.571, random_state=0)
categories = [name for name in table if name.startswith("cat")]
numbers = [name for name in table if name not in categories]
codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
values = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
pipeline = ColumnTransformer([("codes", codes, categories), ("values", values, numbers)])
scaler = StandardScaler().fit(target.iloc[train].to_frame())
pipeline.fit(table.iloc[train])
for name, rows in (("train", train), ("validation", validation), ("test", test)):
    rows = np.sort(rows)
    folder = Path(sys.argv[2]) / name
    folder.mkdir(parents=True)
    encoded = pipeline.transform(table.iloc[rows])
    np.save(folder / "categorical.npy", encoded[:, : len(categories)].astype(np.int64))
    np.save(folder / "numeric.npy", encoded[:, len(categories) :].astype(np.float32))
    np.save(folder / "target.npy", scaler.transform(target.iloc[rows].to_frame()))
    np.save(folder / "key.npy", key.iloc[rows])
"""


def main() -> None:
    """Measure and print rows of RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--no-sklearn", action="store_true", help="more rows than pandas holds")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = copy_project(folder / "project")
        table = project.path / "data/raw/rows.csv"
        write_table(table, options.rows)
        print(f"{options.rows:,} rows, {table.stat().st_size / 1e9:.2f} GB of CSV\n")
        print("| what | s | processor s | peak MB | beside the scan |\n|---|---|---|---|---|")
        for _ in range(options.rounds):
            _measure(project, table, folder, with_sklearn=not options.no_sklearn)


def _measure(project: Project, table: Path, folder: Path, *, with_sklearn: bool) -> None:
    init = ("reprise", "init", str(table), "--target", "y", "--force")
    commands = {
        "a bare scan and sink": (sys.executable, "-c", POLARS, str(table), str(folder / "x.arrow")),
        "`reprise init`": init,
        "prepare": (sys.executable, "-m", "stages.prepare"),
    }
    if with_sklearn:
        commands["scikit-learn"] = (
            *(sys.executable, "-c", SKLEARN, str(table)),
            str(Path(tempfile.mkdtemp(dir=folder))),
        )
    base = 0.0
    for what, command in commands.items():
        seconds, processor, peak = run(project, command)
        base = base or seconds
        print(
            f"| {what} | {seconds:.1f} | {processor:.1f} | {peak:,.0f} | {seconds / base:.2f} |",
            flush=True,
        )


def run(project: Project, command: Sequence[str]) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor of a command, and its peak of memory in MB."""
    environment = {**os.environ, **project_environment()}
    start = time.perf_counter()
    with subprocess.Popen(
        command, cwd=project.path, env=environment, stdout=subprocess.DEVNULL
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)[:80]} ended with {process.returncode}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, _megabytes(used)


def _megabytes(used: resource.struct_rusage) -> float:
    return used.ru_maxrss / 1000


def write_table(path: Path, num_rows: int) -> None:
    """A CSV file of 20 columns."""
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, num_rows, ROWS_AT_ONCE):
            part = make_rows(random, start, min(ROWS_AT_ONCE, num_rows - start))
            part.write_csv(file, include_header=start == 0)


def make_rows(random: np.random.Generator, start: int, num_rows: int) -> pl.DataFrame:
    """Rows of all 20 columns, numbered from `start`."""
    columns = {"id": pl.Series(np.arange(start, start + num_rows))}
    for number in range(8):
        values = random.normal(10 * number, 1 + number, num_rows)
        columns[f"num{number}"] = pl.Series(values.round(4))
    for number in range(3):
        columns[f"int{number}"] = pl.Series(random.integers(0, 10 ** (number + 2), num_rows))
    for number, count in enumerate(NUM_CATEGORIES):
        codes = pl.Series(random.integers(0, count, num_rows)).cast(pl.String)
        columns[f"cat{number}"] = "level_" + codes
    columns["flag"] = pl.Series(random.random(num_rows) < 0.3)
    seconds = pl.Series(random.integers(FIRST, LAST, num_rows) * 1_000_000)
    columns["when"] = seconds.cast(pl.Datetime("us")).dt.strftime("%Y-%m-%d %H:%M:%S")
    gaps = pl.Series(random.random(num_rows) < 0.1)
    columns["gap"] = pl.Series(random.normal(0, 1, num_rows).round(3)).set(gaps, None)
    told = 0.5 * columns["num0"] + 0.2 * columns["num1"]
    columns["y"] = (told + pl.Series(random.normal(0, 1, num_rows))).round(3)
    return pl.DataFrame(columns)


if __name__ == "__main__":
    main()
