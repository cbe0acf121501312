"""The kinds of machine that both sides were trained on: on another, bytes may differ."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.dvc_repo import open_repo
from pipeline.report.differences import differing

KIND = "data/train/machine.json"
MACHINES = (
    "Trained on machines of different kinds, which add up in another order: so weights and metrics "
    "differ in their last digits even where the recipe is the same."
)


def differing_machines(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """The differences between the machines that two locks' models were trained on.

    Nothing where a side does not record it, or DVC's cache has it not: then its predictions are
    not there either, which is said.
    """
    sides = [_read(locked) for locked in (before, after)]
    return differing(*sides) if all(sides) else {}


def _read(locked: Mapping[str, Any]) -> Mapping[str, Any]:
    outs = [out for entry in locked.values() for out in entry.get("outs", [])]
    digest = next((out.get("md5") for out in outs if out["path"] == KIND), None)
    if digest is None:
        return {}
    with open_repo() as repo:
        file = Path(repo.cache.local.oid_to_path(digest))
    found: Mapping[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    return found
