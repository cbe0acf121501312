"""The report's two statements: 'this change', and 'this model on these rows'.

The first is about rows and seeds, from the replicas of both sides; the second about the rows.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.dvc_repo import open_repo
from pipeline.metrics.metrics import format_value
from pipeline.report.base import fetch_command

REPLICAS = "data/evaluate/replicas"
CHANGE = "This change"
MODEL = "This model on these rows"
OF_MEANS = ("metric", "mean before", "mean after", "difference", "95 % interval", "")


def find_replicas(
    locked: Mapping[str, Any], what: str, missing: list[str], commit: str | None
) -> list[Path]:
    """The predictions of each replica that the lock of `commit` names, from DVC's cache.

    Where there are none, the reason goes into `missing`. No commit means the working folder.

    None where nothing is recorded: a side that was trained before there were replicas.
    """
    outs = [out for entry in locked.values() for out in entry.get("outs", [])]
    digest = next((out.get("md5") for out in outs if out["path"] == REPLICAS), None)
    if digest is None:
        return []
    with open_repo() as repo:
        cache = repo.cache.local
        listing = Path(cache.oid_to_path(digest))
        entries = json.loads(listing.read_text(encoding="utf-8")) if listing.exists() else []
        found = {entry["relpath"]: Path(cache.oid_to_path(entry["md5"])) for entry in entries}
    if not found or not all(file.exists() for file in found.values()):
        how = fetch_command(commit)
        missing.append(f"the replicas of {what} are not in DVC's cache: {how} brings them")
        return []
    return [file for _, file in sorted(found.items(), key=lambda item: int(Path(item[0]).stem))]


def is_of_change(comparison: Mapping[str, Any]) -> bool:
    """Check that there are replicas enough to speak of the change, not only of two models."""
    return any(each["change"] is not None for each in comparison["metrics"].values())


def judged(comparison: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The statement that the verdict makes, and its mark of each metric."""
    metrics = comparison["metrics"]
    if is_of_change(comparison):
        return CHANGE, {n: each["change"]["mark"] for n, each in metrics.items() if each["change"]}
    return MODEL, {name: each["mark"] for name, each in metrics.items()}


def change_rows(comparison: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row a metric of 'this change': name, means, difference, interval, mark."""
    rows: list[tuple[str, ...]] = []
    for name, each in comparison["metrics"].items():
        change = each["change"]
        if change is None:
            continue
        ends = f"{change['low']:+.4f} to {change['high']:+.4f}"
        means = (format_value(change[side]) for side in ("before", "after"))
        rows.append((name, *means, f"{change['value']:+.4f}", ends, change["mark"]))
    return rows


def change_note(comparison: Mapping[str, Any]) -> str:
    """The statement on 'this change', or the reason why there is none."""
    counts = comparison["replicas"]
    before, after, needed = counts["before"], counts["after"], counts["needed"]
    if is_of_change(comparison):
        return (
            f"Means over seeds, {before} before and {after} after: the interval covers the luck "
            "of the rows and that of the training."
        )
    seeds = too_few_seeds(comparison)
    if seeds is None:
        return "Rows only: of these metrics it is not known how far other rows would move them."
    return (
        f"Rows only, with {seeds}: {needed} replicas on both sides (`train.replicas`) would tell "
        "whether other seeds say the same."
    )


def too_few_seeds(comparison: Mapping[str, Any]) -> str | None:
    """The numbers of seeds in words, where they are too few to speak of the change; or None."""
    counts = comparison["replicas"]
    before, after = counts["before"], counts["after"]
    if min(before, after) >= counts["needed"]:
        return None
    if before == after == 1:
        return "one seed on either side"
    return f"{_seeds(before)} before, {_seeds(after)} after"


def _seeds(number: int) -> str:
    return "one seed" if number == 1 else f"{number} seeds"
