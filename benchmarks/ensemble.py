"""What an ensemble of a search's trials gains over its best trial, on test rows.

    python -m benchmarks.ensemble houses.csv:price sklearn:diabetes --splits 3

A source is one of `benchmarks.accuracy`. In a fresh copy of the project `reprise init` writes
`params.yaml`; `--set KEY=VALUE` changes it further. For each seed of the split `dvc repro evaluate`
then searches, trains the best trial and judges it; with `train.ensemble: tune` it trains and judges
the ensemble that the same search proposes, and, to tell its members from their number, as many
trainings of the best trial, which differ in the seed.
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
from stages.common.params import to_plain
from stages.common.yamlfile import read_yaml
from tests.conftest import Project, copy_project
from tests.support.samples import set_params

SEARCH = {"tune.trials": 24, "tune.keep_scores": 24, "train.replicas": 1}
HEADS = ("best trial", "ensemble", "the best, as often", "members", "gain by validation", "low")


def main() -> None:
    """Measure each source on each split, and print a row for it and one of means."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sources", nargs="+", help="FILE:TARGET, keel:NAME or sklearn:NAME")
    parser.add_argument("--splits", type=int, default=3, help="seeds of the split, from 0")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE of params.yaml, JSON")
    options = parser.parse_args()
    pairs = (each.split("=", 1) for each in options.set)
    changes = {**SEARCH, **{key: json.loads(value) for key, value in pairs}}
    print(f"| source, split | {' | '.join(HEADS)} | high |")
    for source in options.sources:
        rows = []
        for seed in range(options.splits):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(_measure(Path(folder), source, {**changes, "prepare.split.seed": seed}))
            _show(f"{source}, {seed}", rows[-1])
        _show(f"{source}, mean", [statistics.fmean(column) for column in zip(*rows, strict=True)])


def _show(name: str, figures: Any) -> None:
    print(f"| {name} | " + " | ".join(f"{each:.5g}" for each in figures) + " |", flush=True)


def _measure(folder: Path, source: str, changes: dict[str, Any]) -> tuple[float, ...]:
    """The figures of `HEADS`: three metrics of the test rows, and the proposal of the search."""
    project = copy_project(folder)
    own, target = bring_in(project, source)
    run(project, "reprise", "init", str(own), "--target", target, "--force")
    set_params(project, changes)
    alone = _judge(project)
    proposal = read_json(project.path / "data/tune/ensemble.json")
    count, gain = len(proposal["members"]), proposal["gain"]
    set_params(project, {"train.ensemble": "tune"})
    together = _judge(project)
    best = to_plain(read_yaml(project.path / "data/tune/best.yaml"))
    same = [{"weight": 1, "set": dict(best)} for _ in range(count)]
    set_params(project, {"train.ensemble": same})
    as_often = _judge(project)
    return alone, together, as_often, count, gain["value"], *gain["interval"]


def _judge(project: Project) -> float:
    began = time.monotonic()
    run(project, "dvc", "repro", "evaluate")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    metrics = read_json(project.path / "data/evaluate/metrics.json")
    return float(metrics["rmse" if "rmse" in metrics else "log_loss"])


if __name__ == "__main__":
    main()
