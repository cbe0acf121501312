"""What a change did, for whoever reviews it: `reprise report --base main`.

Compares the working folder with a base revision. Row-level predictions come from DVC's cache by
the hashes in each side's `dvc.lock`; what is not there is said, with what fetches it, and the
report gives what it can.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.dvcrepo import open_repo
from pipeline.git import git, try_git
from pipeline.metrics import read_metrics
from pipeline.report_change import find_replicas
from stages.common.errors import UserError
from stages.common.params import DVC_FILE, PARAMS, VERSIONS
from stages.common.yamlfile import read_yaml

LOCK = Path("dvc.lock")
HERE = Path()
PREDICTIONS = "data/evaluate/predictions.parquet"
SCHEMA = "data/prepare/schema.json"
BRANCHES = ("origin/HEAD", "main", "master")


@dataclass(frozen=True)
class Change:
    """A stage whose entry in `dvc.lock` differs, and in what."""

    stage: str
    why: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """All that the pages show. `comparison` is what `stages.evaluate.compare` prints."""

    base: str
    commit: str
    metrics: Mapping[str, Mapping[str, tuple[Any, Any]]]
    params: Mapping[str, tuple[Any, Any]]
    changes: tuple[Change, ...]
    comparison: Mapping[str, Any]
    curves: Mapping[str, tuple[str | None, str | None]]
    columns: tuple[str, ...] = ()
    missing: tuple[str, ...] = field(default=())


def find_base(asked: str | None) -> tuple[str, str]:
    """The base revision as the user knows it, and its commit.

    Without a name it is where this branch has left the default one. Raises UserError.
    """
    for name in [asked] if asked is not None else BRANCHES:
        done = try_git(HERE, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if done.returncode != 0:
            continue
        commit = done.stdout.strip()
        if asked is not None:
            return name, commit
        return f"merge base with {name}", git(HERE, "merge-base", "HEAD", commit)
    if asked is not None:
        raise UserError(f"there is no revision '{asked}'\n  --base takes a branch, tag or commit")
    raise UserError(f"none of {', '.join(BRANCHES)} is here: name the base with --base")


def make_report(asked: str | None) -> Report:
    """The report on the working folder against a base revision.

    Raises UserError when there is no such revision, or nothing has run yet.
    """
    base, commit = find_base(asked)
    if not LOCK.exists():
        raise UserError("there is no dvc.lock: run 'dvc repro' first")
    before, after = _locked(_at(commit, str(LOCK)) or ""), _locked(LOCK.read_text("utf-8"))
    missing: list[str] = []
    comparison: Mapping[str, Any] = {}
    files = [
        _cached(before, PREDICTIONS, f"the predictions of {base}", missing),
        _cached(after, PREDICTIONS, "the predictions of the working folder", missing),
    ]
    if files[0] is not None and files[1] is not None:
        replicas = [
            find_replicas(before, base, missing),
            find_replicas(after, "the working folder", missing),
        ]
        comparison = _compare(files[0], files[1], replicas)
    schemas = [_cached(side, SCHEMA, "the schema", []) for side in (before, after)]
    return Report(
        base=base,
        commit=commit,
        metrics=_metrics(commit),
        params=_params(commit),
        changes=find_changes(before, after),
        comparison=comparison,
        curves={path: (_at(commit, path), _now(path)) for path in _plots()},
        columns=_columns(schemas[0], schemas[1]),
        missing=tuple(missing),
    )


def find_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """The stages whose recorded inputs differ, in the order of `dvc.lock`, and why."""
    changes = []
    for name, entry in after.items():
        old = before.get(name)
        if old is None:
            changes.append(Change(name, ("new",)))
            continue
        why = [] if old.get("cmd") == entry.get("cmd") else ["its command"]
        sides = [_flat(side.get("params", {}).get(PARAMS.name, {})) for side in (old, entry)]
        why += [f"`{key}`" for key in _differing(*sides)]
        sides = [_flat(side.get("params", {}).get(str(VERSIONS), {})) for side in (old, entry)]
        why += [
            f"{k} {as_text(was)} → {as_text(now)}" for k, (was, now) in _differing(*sides).items()
        ]
        hashes = [{dep["path"]: dep.get("md5") for dep in e.get("deps", [])} for e in (old, entry)]
        why += [f"`{path}`" for path in _differing(hashes[0], hashes[1])]
        if why:
            changes.append(Change(name, tuple(why)))
    changes += [Change(name, ("removed",)) for name in before if name not in after]
    return tuple(changes)


def _at(commit: str, path: str) -> str | None:
    """The text of a file at a commit, or None."""
    done = try_git(HERE, "show", f"{commit}:./{path}")
    return done.stdout if done.returncode == 0 else None


def _now(path: str) -> str | None:
    file = Path(path)
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _locked(text: str) -> dict[str, Any]:
    return _parse(text).get("stages") or {}


def _parse(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(text)
    return content if isinstance(content, dict) else {}


def _cached(locked: Mapping[str, Any], path: str, what: str, missing: list[str]) -> Path | None:
    """The file in DVC's cache that a lock names; else None, and why it is missing."""
    outs = [out for entry in locked.values() for out in entry.get("outs", [])]
    digest = next((out.get("md5") for out in outs if out["path"] == path), None)
    if digest is None:
        missing.append(f"{what}: its dvc.lock does not name {path}; run 'dvc repro' there")
        return None
    with open_repo() as repo:
        file = Path(repo.cache.local.oid_to_path(digest))
    if not file.exists():
        missing.append(f"{what} are not in DVC's cache: 'dvc fetch --all-branches' brings them")
        return None
    return file


def _compare(before: Path, after: Path, replicas: Sequence[list[Path]]) -> Mapping[str, Any]:
    names = [str(name) for name in read_yaml(PARAMS)["evaluate"]["metrics"]]
    command = [sys.executable, "-m", "stages.evaluate.compare", str(before), str(after), *names]
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
    for name, stage in (_parse(_at(commit, str(DVC_FILE)) or "").get("stages") or {}).items():
        for entry in stage.get("metrics", []):
            path = next(iter(entry)) if isinstance(entry, dict) else entry
            text = _at(commit, path)
            if text is not None and path.endswith(".json"):
                old.setdefault(name, {}).update(json.loads(text))
    new = read_metrics()
    for stage_name in {**old, **new}:
        was, now = old.get(stage_name, {}), new.get(stage_name, {})
        found[stage_name] = {key: (was.get(key), now.get(key)) for key in {**was, **now}}
    return found


def _params(commit: str) -> dict[str, tuple[Any, Any]]:
    old, new = _parse(_at(commit, str(PARAMS)) or ""), read_yaml(PARAMS)
    return _differing(_flat(old), _flat(new))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        key: (old.get(key), new.get(key))
        for key in {**old, **new}
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    }


def _plots() -> list[str]:
    """The plots that lie in git, by path."""
    paths: list[str] = []
    for stage in (read_yaml(DVC_FILE).get("stages") or {}).values():
        for entry in stage.get("plots", []):
            paths.append(next(iter(entry)) if isinstance(entry, dict) else entry)
    return [path for path in paths if path.endswith(".csv")]


def _columns(before: Path | None, after: Path | None) -> tuple[str, ...]:
    """The columns that came, went, or changed their kind."""
    if before is None or after is None or before == after:
        return ()
    sides = []
    for path in (before, after):
        schema = json.loads(path.read_text(encoding="utf-8"))
        sides.append({column["name"]: column.get("kind") for column in schema["features"]})
    return tuple(
        f"`{name}`: {as_text(was)} → {as_text(now)}"
        for name, (was, now) in _differing(sides[0], sides[1]).items()
    )


def as_text(value: object) -> str:
    """A value of `params.yaml` or a lock, as YAML would say it on one line."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False, default=str)
