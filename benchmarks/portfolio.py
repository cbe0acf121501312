"""How soon a search that begins with known recipes is as good as one that begins with nothing.

    python -m benchmarks.portfolio sklearn:diabetes sklearn:wine keel:pima --trials 50

Sources are those of `benchmarks.accuracy`, with the recipe that `reprise init` writes. One search
has TPE alone (`tune.portfolio: false`), the other the portfolio first; what counts is the time of
the processor until the second has a trial as good as the best of the first, beside the time of all
of the first.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.accuracy import bring_in, run
from tests.conftest import Project, copy_project, project_environment
from tests.support.samples import set_params


@dataclass(frozen=True)
class Trial:
    """The best loss so far, and the seconds of the processor until then."""

    best: float
    seconds: float


def main() -> None:
    """Search each source both ways, for each seed, and print rows of RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+", help="FILE:TARGET, keel:NAME or sklearn:NAME")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print("| table | seed | TPE alone | after | with the portfolio | as good after | share |")
    print("|---|---|---|---|---|---|---|")
    for source in options.sources:
        with tempfile.TemporaryDirectory() as folder:
            project = copy_project(Path(folder))
            own, target = bring_in(project, source)
            run(project, "reprise", "init", str(own), "--target", target, "--force")
            changes = {"tune.epochs": options.epochs, "tune.pruner": "none"}
            changes |= {"tune.trials": options.trials, "tune.sampler": "tpe"}
            set_params(project, changes)
            run(project, "dvc", "repro", "build")
            for seed in range(options.seeds):
                print(compare(project, source, seed), flush=True)


def compare(project: Project, source: str, seed: int) -> str:
    """Search both ways; a row of the table."""
    set_params(project, {"seed": seed})
    run(project, "dvc", "repro", "build")
    alone, known = (search(project, portfolio=portfolio) for portfolio in (False, True))
    whole, best = alone[-1].seconds, alone[-1].best
    reached = next((trial.seconds for trial in known if trial.best <= best), None)
    after = "never" if reached is None else f"{reached:.1f} s"
    share = "–" if reached is None else f"{reached / whole:.2f}"
    shown = f"{best:.4f} | {whole:.1f} s | {known[-1].best:.4f} | {after} | {share}"
    return f"| {source} | {seed} | {shown} |"


def search(project: Project, *, portfolio: bool) -> list[Trial]:
    """Search with one thread and in one process; the trials in their order."""
    set_params(project, {"tune.portfolio": portfolio})
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "stages.tune"],
        cwd=project.path,
        env={**project_environment(), "REPRISE_THREADS": "1", "REPRISE_AT_ONCE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    began, ended = 0.0, []
    for line in process.stdout:
        used = psutil.Process(process.pid).cpu_times()
        seconds = used.user + used.system
        if line.startswith("sampler: "):
            # The libraries are loaded.
            began = seconds
        elif line.startswith("trial "):
            ended.append(seconds - began)
    if process.wait() != 0:
        sys.exit("the search failed; see above")
    with (project.path / "data/tune/trials.csv").open(encoding="utf-8") as file:
        values = [float(row["value"] or "inf") for row in csv.DictReader(file)]
    trials, best = [], float("inf")
    for value, seconds in zip(values, ended, strict=True):
        best = min(best, value)
        trials.append(Trial(best, seconds))
    return trials


if __name__ == "__main__":
    main()
