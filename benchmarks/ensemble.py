"""What an ensemble of a search's trials gains over its best trial, on test rows.

    python -m benchmarks.ensemble houses.csv:price sklearn:diabetes --splits 3

A source is one of `benchmarks.accuracy`. In a fresh copy of the project `reprise init` writes
`params.yaml`; `--set KEY=VALUE` changes it further. For each seed of the split `dvc repro evaluate`
then searches, trains the best trial and judges it; with `train.ensemble: tune` it trains and judges
the ensemble that the same search proposes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.accuracy import bring_in, run
from stages.common.files import read_json
from tests.conftest import Project, copy_project
from tests.support.samples import set_params

SEARCH = {"tune.trials": 24, "tune.keep_scores": 24, "train.replicas": 1}


def main() -> None:
    """Measure each source on each split, and print a row of means for it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+", help="FILE:TARGET, keel:NAME or sklearn:NAME")
    parser.add_argument("--splits", type=int, default=3, help="seeds of the split, from 0")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of params.yaml, JSON")
    options = parser.parse_args()
    pairs = (each.split("=", 1) for each in options.set)
    changes = {**SEARCH, **{key: json.loads(value) for key, value in pairs}}
    for source in options.sources:
        rows = []
        for seed in range(options.splits):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(_measure(Path(folder), source, {**changes, "prepare.split.seed": seed}))
                print(source, seed, rows[-1], file=sys.stderr, flush=True)
        means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
        wins = sum(together != alone for alone, together, *_ in rows)
        print(f"| {source} | " + " | ".join(f"{mean:.5g}" for mean in means) + f" | {wins} |")


def _measure(folder: Path, source: str, changes: dict[str, Any]) -> tuple[float, ...]:
    """The test metric of the best trial and of the ensemble, and what these took in seconds.

    Then the number of members, and the gain by the validation rows with its interval.
    """
    project = copy_project(folder)
    own, target = bring_in(project, source)
    run(project, "reprise", "init", str(own), "--target", target, "--force")
    set_params(project, changes)
    alone, first = _judge(project)
    set_params(project, {"train.ensemble": "tune"})
    proposal = read_json(project.path / "data/tune/ensemble.json")
    together, second = _judge(project)
    gain = proposal["gain"]
    members = len(proposal["members"])
    return alone, together, first, second, members, gain["value"], *gain["interval"]


def _judge(project: Project) -> tuple[float, float]:
    began = time.monotonic()
    run(project, "dvc", "repro", "evaluate")
    metrics = read_json(project.path / "data/evaluate/metrics.json")
    return metrics["rmse" if "rmse" in metrics else "log_loss"], time.monotonic() - began


if __name__ == "__main__":
    main()
