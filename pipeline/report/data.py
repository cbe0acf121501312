"""The report's part on the data and on slices, from both sides' files in DVC's cache.

The comparisons are code of the stages, which are started as processes.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.dvc_repo import open_repo
from pipeline.report.base import fetch_command
from stages.common.params import PARAMS
from stages.common.yamlfile import read_yaml

PREPARED = "data/prepare/"
FOLDERS = ("train", "validation", "test")
PARTS = ("schema.json", "statistics.json", *FOLDERS)
PREDICTIONS = "data/evaluate/predictions.parquet"

Locked = Mapping[str, Any]


def is_renumbered(before: Locked, after: Locked) -> bool:
    """Check whether rows without a key have other numbers: those of another source.

    One row more at the top, and each number names the row beside the one that it named.
    """
    sides = [_source_of(side) for side in (before, after)]
    return any(key is None for key, _ in sides) and sides[0][1] != sides[1][1]


def _source_of(locked: Locked) -> tuple[object, object]:
    """The key's column and the hash of the source that prepare is recorded with."""
    entry = locked.get("prepare", {})
    section = entry.get("params", {}).get(PARAMS.name, {}).get("prepare", {})
    # An object in storage is known by its ETag.
    deps = {dep["path"]: dep.get("md5") or dep.get("etag") for dep in entry.get("deps", [])}
    # Where nothing is recorded nothing is known of it.
    return section.get("key", ""), deps.get(section.get("source"))


def compare_data(
    before: Locked, after: Locked, base: str, commit: str, missing: list[str]
) -> dict[str, Any]:
    """The result of `stages.compare.data_drift`; {"same": True} where nothing can differ.

    `before` and `after` are the stages of both `dvc.lock`, that of `commit` and the
    present one. Empty where files are not in DVC's cache: `missing` then says so, and what brings
    them.
    """
    digests = [_digests(side) for side in (before, after)]
    if digests[0] == digests[1] and len(digests[0]) == len(PARTS):
        return {"same": True}
    what = "the prepared data of"
    sides = [
        _find(digests[0], f"{what} {base}", missing, commit),
        _find(digests[1], f"{what} the working folder", missing, None),
    ]
    if sides[0] is None or sides[1] is None:
        return {}
    files = {"before": sides[0], "after": sides[1]}
    return _start("stages.compare.data_drift", files, "the data", missing)


def compare_slices(before: Locked, after: Locked, missing: list[str]) -> dict[str, Any]:
    """The answer of `stages.compare.slice_regressions` on two predictions of the cache."""
    section = read_yaml(PARAMS)["evaluate"]
    # That the working folder's data is not here has been said where the data was compared.
    prepared = _find(_digests(after), "", [], None)
    if prepared is None:
        return {}
    with open_repo() as repo:
        paths = [
            str(repo.cache.local.oid_to_path(_outs(side)[PREDICTIONS])) for side in (before, after)
        ]
    files = {
        "metric": section["metrics"][0],
        "columns": section["slices"],
        "before": {"predictions": paths[0]},
        "after": {"predictions": paths[1], **prepared},
    }
    return _start("stages.compare.slice_regressions", files, "the slices", missing)


def _outs(locked: Locked) -> dict[str, str]:
    """The outputs of all stages with their hashes."""
    outs = [out for entry in locked.values() for out in entry.get("outs", [])]
    return {out["path"]: out["md5"] for out in outs if "md5" in out}


def _digests(locked: Locked) -> dict[str, str]:
    """The digests of prepare's outputs, by their names."""
    outs = _outs(locked)
    return {part: outs[PREPARED + part] for part in PARTS if PREPARED + part in outs}


def _find(
    digests: Mapping[str, str], what: str, missing: list[str], commit: str | None
) -> dict[str, Any] | None:
    """The files in DVC's cache, those of a folder by their names in it; None where one is not."""
    if len(digests) < len(PARTS):
        missing.append(f"{what}: dvc.lock does not name all of {PREPARED}; run 'dvc repro' there")
        return None
    found: dict[str, Any] = {}
    with open_repo() as repo:
        for part, digest in digests.items():
            path = Path(repo.cache.local.oid_to_path(digest))
            if part in FOLDERS and path.exists():
                # DVC keeps a folder as a list of its files.
                entries = json.loads(path.read_text(encoding="utf-8"))
                listed = {e["relpath"]: repo.cache.local.oid_to_path(e["md5"]) for e in entries}
                found[part] = {name: str(file) for name, file in listed.items()}
                paths = [Path(file) for file in listed.values()]
            else:
                found[part], paths = str(path), [path]
            if not all(file.exists() for file in paths):
                how = fetch_command(commit)
                missing.append(f"{what} is not in DVC's cache: {how} brings it")
                return None
    return found


def _start(module: str, files: Mapping[str, Any], what: str, missing: list[str]) -> dict[str, Any]:
    """The JSON that `module` prints. A failure is said: the rest of the report can be made."""
    command = [sys.executable, "-m", module]
    text = json.dumps(files)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        missing.append(f"{what} of both sides can't be compared: {last}")
        return {}
    found: dict[str, Any] = json.loads(done.stdout)
    return found
