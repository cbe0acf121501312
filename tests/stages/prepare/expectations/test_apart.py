"""A suite as the stage runs it, and in a process of its own: the same bytes, nothing else."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from stages.prepare.expectations.run import FAILED_PAGE, check_expectations
from stages.prepare.table.table import in_memory
from tests.conftest import ROOT, Project
from tests.stages.prepare.expectations.suites import OUT, SUITE, TABLE, about

# Runs a suite on its own: prints what was connected to and which heavy modules were loaded.
ALONE = """
import sys
from pathlib import Path
connected = []
sys.addaudithook(lambda event, args: connected.append(args) if event == "socket.connect" else None)
sys.path.insert(0, sys.argv[1])
import polars as pl
from stages.prepare.expectations.run import check_expectations
from stages.prepare.table.table import in_memory
table = in_memory(pl.read_csv("table.csv"))
check_expectations(table, Path("suite.yaml"), "table.csv", Path("out"))
loaded = [name for name in ("great_expectations", "pandas") if name in sys.modules]
print("connected", connected, "loaded", loaded)
"""


@pytest.mark.parametrize("name", ["digits", "diabetes", "breast_cancer"])
def test_the_bundled_tables_meet_their_suites(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = ROOT / "data" / "raw"
    table = pl.read_parquet(raw / f"{name}.parquet")
    check_expectations(in_memory(table), raw / f"{name}.expectations.yaml", name, OUT)
    counts = json.loads((OUT / "expectations.json").read_text())
    assert (counts["rows"], counts["columns"]) == table.shape
    assert counts["passed"] == counts["expectations"] > 5
    assert counts["warnings"] == 0
    assert capsys.readouterr() == ("", "")


def test_an_empty_suite_is_met_without_great_expectations() -> None:
    for suite in ("[]\n", "# nothing yet\n"):
        SUITE.write_text(suite)
        TABLE.write_csv("table.csv")
        done = run_alone()
        assert done.stdout == "connected [] loaded []\n", done.stderr
        counts = json.loads((OUT / "expectations.json").read_text())
        assert counts == {"rows": 6, "columns": 3, "expectations": 0, "passed": 0, "warnings": 0}
        assert "No expectations" in (OUT / "expectations.html").read_text()


def test_two_runs_write_the_same_bytes_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TABLE.write_csv("table.csv")
    # More values than Great Expectations lists, which it takes in the order of a set.
    many = f", value_set: {[f'job {n}' for n in range(40)]}"
    few = ", value_set: [a, b, c, nurse]"
    rules = [
        about("distinct_values_to_contain_set", "job", many, "warning"),
        about("distinct_values_to_equal_set", "job", few, "warning"),
        about("values_to_be_between", "age", ", min_value: 0", "warning"),
    ]
    SUITE.write_text("".join(f"- {{{rule}}}\n" for rule in rules))
    check_expectations(in_memory(pl.read_csv("table.csv")), SUITE, "table.csv", OUT)
    said = capsys.readouterr().out
    assert "40 missing\n" in said
    assert "3 missing (a, b, c)" in said
    written = {file.name: file.read_bytes() for file in OUT.iterdir()}
    # Another order of sets than in this process.
    done = run_alone(PYTHONHASHSEED="2" if os.environ.get("PYTHONHASHSEED") == "1" else "1")
    assert {file.name: file.read_bytes() for file in OUT.iterdir()} == written
    assert done.stderr == ""
    assert done.stdout == f"{said}connected [] loaded ['great_expectations', 'pandas']\n"
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {"table.csv", "suite.yaml", "out/expectations.html", "out/expectations.json"}


def run_alone(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the suite in a process of its own, with an empty home under the working folder."""
    home = Path("home").resolve()
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return subprocess.run(
        [sys.executable, "-c", ALONE, str(ROOT)],
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_the_stage_writes_the_page_or_stops_with_it(fresh: Callable[[str], Project]) -> None:
    project = fresh("project")
    done = project.run("python", "-m", "stages.prepare")
    assert done.stderr == ""
    counts = json.loads((project.path / "data/prepare/expectations.json").read_text())
    assert counts["passed"] == counts["expectations"]
    written = project.outputs()

    source = project.path / "data/raw/digits.parquet"
    table = pl.read_parquet(source)
    table.with_columns(label=pl.when(pl.col("id") == 7).then(12).otherwise("label")).write_parquet(
        source
    )
    done = project.run("python", "-m", "stages.prepare", ok=False)
    assert "1 too many (12)" in done.stderr
    assert "data/raw/digits.expectations.yaml:14  7.type" in done.stderr
    assert "1 too many (12)" in (project.path / FAILED_PAGE).read_text()
    assert project.outputs() == written
