"""The outputs of the last run as the page needs them: tables, JSON, and what is not there."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.common.lockfile import read_lock
from pipeline.metrics.gates import EVALUATE, Verdict, judge_all, read_gates, stale_evaluate
from pipeline.metrics.metrics import read_metrics
from stages.common.errors import UserError
from stages.common.files import read_csv, read_json
from stages.common.params import PARAMS
from stages.common.yamlfile import read_yaml

DATA = Path("data")
NEEDS_BASE = "it compares with another revision: 'reprise gate' judges it"

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Run:
    """All that the page is drawn from.

    `metrics` are by stage, `tables` the rows of CSV files and `records` the contents of JSON
    files by their paths under data/, `card` the text of the model card, `mistakes` the bytes of
    its picture. `locked` are the stages of `dvc.lock`, `params` the present content of
    `params.yaml`. `missing` are the paths that are not there.
    """

    metrics: Mapping[str, Mapping[str, Any]]
    gates: tuple[Verdict, ...]
    locked: Mapping[str, Any]
    params: Mapping[str, Any]
    tables: Mapping[str, Rows]
    records: Mapping[str, Any]
    card: str = ""
    mistakes: bytes = b""
    missing: tuple[str, ...] = field(default=())

    def param(self, stage: str, *keys: str) -> Any:
        """A value of `params.yaml` as the stage ran with it; None where it is not recorded.

        `keys` lead to it from the name under which `dvc.lock` has it.
        """
        found = self.locked.get(stage, {}).get("params", {}).get(PARAMS.name, {})
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found


TABLES = (
    *("train/plots/loss.csv", "train/plots/metric.csv", "train/replicas/seeds.csv"),
    *("train/replicas/folds.csv", "tune/plots/history.csv", "tune/plots/importance.csv"),
    *("evaluate/slices.csv", "evaluate/classes.csv", "evaluate/mistakes.csv"),
    *(
        f"evaluate/plots/{name}.csv"
        for name in (
            *("confusion", "roc", "precision_recall", "calibration", "calibration_before"),
            *("importance", "attribution", "residuals", "predicted"),
        )
    ),
)
RECORDS = (
    *("evaluate/intervals.json", "prepare/schema.json", "train/recipe.json"),
    *("train/model.json", "train/machine.json"),
)
CARD, PICTURE = "evaluate/card.md", "evaluate/mistakes.png"
# They are there only with several trainings.
OPTIONAL = ("train/replicas/seeds.csv", "train/replicas/folds.csv")


def read_run() -> Run:
    """The outputs under data/, and how the gates judge them.

    Raises UserError when no stage has written metrics yet, or a gate is wrong.
    """
    metrics = read_metrics()
    if not metrics:
        raise UserError("no stage has written metrics yet: run 'dvc repro'")
    gates = read_gates()
    there = {path: DATA / path for path in (*TABLES, *RECORDS, CARD, PICTURE)}
    there = {path: file for path, file in there.items() if file.is_file()}
    locked = read_lock()
    values, stale = metrics.get(EVALUATE, {}), stale_evaluate(locked)
    verdicts = judge_all(gates, values, {}, [NEEDS_BASE], stale)
    return Run(
        metrics=metrics,
        gates=tuple(verdicts),
        locked=locked,
        params=read_yaml(PARAMS) or {},
        tables={path: read_csv(there[path]) for path in TABLES if path in there},
        records={path: read_json(there[path]) for path in RECORDS if path in there},
        card=there[CARD].read_text(encoding="utf-8") if CARD in there else "",
        mistakes=there[PICTURE].read_bytes() if PICTURE in there else b"",
        missing=tuple(
            path
            for path in (*TABLES, *RECORDS, CARD, PICTURE)
            if path not in there and path not in OPTIONAL
        ),
    )


def number(text: str | None) -> float | None:
    """A number of a CSV file; None where the field is empty or no finite number."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def points(rows: Rows, x: str, y: str) -> list[tuple[float, float]]:
    """The columns `x` and `y` as points, where both are numbers."""
    pairs = ((number(row.get(x)), number(row.get(y))) for row in rows)
    return [(a, b) for a, b in pairs if a is not None and b is not None]
