"""The effects of a change, for whoever reviews it: `reprise report --base main`.

Compares the working folder with a base revision. Row-level predictions come from DVC's cache by
the hashes in each side's `dvc.lock`; what is not there is said, with what fetches it, and the
report gives what it can.
"""

import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.common.dvc_repo import open_repo
from pipeline.common.lockfile import PIPELINE, describe_stale, find_stale, of_pipeline, read_lock
from pipeline.metrics.gates import EVALUATE, Verdict, judge_all, read_gates, stale_evaluate
from pipeline.metrics.metrics import read_metrics
from pipeline.report.base import fetch_command, find_base, parse, text_at
from pipeline.report.data import compare_data, compare_slices, is_renumbered
from pipeline.report.differences import StageChange, changed_params, find_stage_changes
from pipeline.report.machine import differing_machines
from pipeline.report.statements import find_replicas
from stages.common.errors import UserError
from stages.common.params import DVC_FILE, PARAMS
from stages.common.yamlfile import read_yaml

LOCK = Path("dvc.lock")
PREDICTIONS = "data/evaluate/predictions.parquet"


@dataclass(frozen=True)
class Report:
    """All that the pages show.

    `comparison`, `data` and `slices` are what `stages.compare.compare`, `data_drift` and
    `slice_regressions` print; they are empty where their files are not here, as `missing` says.
    `stale` are the stages whose outputs are of another model or other data than `dvc.lock` has,
    with why and on which side. Nothing is compared where evaluate is one of them.
    """

    base: str
    commit: str
    metrics: Mapping[str, Mapping[str, tuple[Any, Any]]]
    params: Mapping[str, tuple[Any, Any]]
    changes: tuple[StageChange, ...]
    comparison: Mapping[str, Any]
    curves: Mapping[str, tuple[str | None, str | None]]
    data: Mapping[str, Any] = field(default_factory=dict)
    slices: Mapping[str, Any] = field(default_factory=dict)
    gates: tuple[Verdict, ...] = ()
    machines: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    stale: Mapping[str, Sequence[str]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def make_report(revision: str | None) -> Report:
    """The report on the working folder against a base revision.

    Raises UserError when there is no such revision, or nothing has run yet.
    """
    base, commit = find_base(revision)
    if not LOCK.exists():
        raise UserError("there is no dvc.lock: run 'dvc repro' first")
    before, after = _locked_at(commit), read_lock()
    comparison, missing = compare_with(base, commit)
    gates, now = read_gates(), read_metrics().get(EVALUATE, {})
    stale = _find_stale(before, after)
    verdicts = judge_all(gates, now, comparison, missing, stale_evaluate(after))
    data = compare_data(before, after, base, commit, missing)
    paired = bool(comparison) and comparison["why_not"] is None
    slices = compare_slices(before, after, missing) if paired else {}
    return Report(
        base=base,
        commit=commit,
        metrics=_metrics(commit),
        params=changed_params(parse(text_at(commit, str(PARAMS))), read_yaml(PARAMS)),
        changes=find_stage_changes(before, after),
        comparison=comparison,
        curves={path: (text_at(commit, path), _now(path)) for path in _plots(stale)},
        data=data,
        slices=slices,
        gates=tuple(verdicts),
        machines=differing_machines(before, after),
        stale=stale,
        missing=tuple(line for line in missing if line not in stale.get(EVALUATE, ())),
    )


def compare_with(base: str, commit: str) -> tuple[Mapping[str, Any], list[str]]:
    """The result of `stages.compare.compare`, and the reasons where predictions are missing."""
    if not LOCK.exists():
        raise UserError("there is no dvc.lock: run 'dvc repro' first")
    before, after = _locked_at(commit), read_lock()
    if stale := _find_stale(before, after).get(EVALUATE):
        return {}, stale
    missing: list[str] = []
    files = [
        _cached(before, PREDICTIONS, f"the predictions of {base}", missing, commit),
        _cached(after, PREDICTIONS, "the predictions of the working folder", missing, None),
    ]
    if files[0] is None or files[1] is None:
        return {}, missing
    replicas = [
        find_replicas(before, base, missing, commit),
        find_replicas(after, "the working folder", missing, None),
    ]
    renumbered = is_renumbered(before, after)
    return _compare(files[0], files[1], replicas, renumbered=renumbered), missing


def _find_stale(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]]:
    """The stages that are stale on a side by its own `dvc.lock`, with a line for each side."""
    found: dict[str, list[str]] = {}
    for name, writer in find_stale(before).items():
        found.setdefault(name, []).append(f"at the base, {describe_stale(name, writer)} there")
    for name, writer in find_stale(after).items():
        found.setdefault(name, []).append(describe_stale(name, writer))
    return found


def _now(path: str) -> str | None:
    file = Path(path)
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _locked_at(commit: str) -> dict[str, Any]:
    return of_pipeline(*(parse(text_at(commit, str(path))) for path in (LOCK, PIPELINE)))


def _cached(
    locked: Mapping[str, Any], path: str, what: str, missing: list[str], commit: str | None
) -> Path | None:
    """The file in DVC's cache that the lock of `commit` names; else None, and why it is missing.

    No commit means the working folder.
    """
    outs = [out for entry in locked.values() for out in entry.get("outs", [])]
    digest = next((out.get("md5") for out in outs if out["path"] == path), None)
    if digest is None:
        missing.append(f"{what}: its dvc.lock does not name {path}; run 'dvc repro' there")
        return None
    with open_repo() as repo:
        file = Path(repo.cache.local.oid_to_path(digest))
    if not file.exists():
        missing.append(f"{what} are not in DVC's cache: {fetch_command(commit)} brings them")
        return None
    return file


def _compare(
    before: Path, after: Path, replicas: Sequence[list[Path]], *, renumbered: bool
) -> Mapping[str, Any]:
    names = [str(name) for name in read_yaml(PARAMS)["evaluate"]["metrics"]]
    command = [sys.executable, "-m", "stages.compare.compare", str(before), str(after), *names]
    command += ["--renumbered"] if renumbered else []
    for side, files in zip(("before", "after"), replicas, strict=True):
        command += [f"--replicas-{side}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()[-3:]
        raise UserError("\n  ".join(["the predictions can't be compared:", *lines]))
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def _metrics(commit: str) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Every metric of both sides, by stage: (before, after); None where it is not there."""
    found: dict[str, dict[str, tuple[Any, Any]]] = {}
    old: dict[str, dict[str, Any]] = {}
    for name, stage in (parse(text_at(commit, str(DVC_FILE))).get("stages") or {}).items():
        for entry in stage.get("metrics", []):
            path = next(iter(entry)) if isinstance(entry, dict) else entry
            text = text_at(commit, path)
            if text is not None and path.endswith(".json"):
                old.setdefault(name, {}).update(json.loads(text))
    new = read_metrics()
    for stage_name in {**old, **new}:
        was, now = old.get(stage_name, {}), new.get(stage_name, {})
        found[stage_name] = {key: (was.get(key), now.get(key)) for key in {**was, **now}}
    return found


def _plots(left_out: Collection[str]) -> list[str]:
    """The plots that lie in git, by path, except those of some stages."""
    paths: list[str] = []
    for name, stage in (read_yaml(DVC_FILE).get("stages") or {}).items():
        if name in left_out:
            continue
        for entry in stage.get("plots", []):
            paths.append(next(iter(entry)) if isinstance(entry, dict) else entry)
    return [path for path in paths if path.endswith(".csv")]
