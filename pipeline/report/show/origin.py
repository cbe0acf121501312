"""The foot of the page: the surest mistakes, the model card, and what made the run."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.common.git import try_git
from pipeline.report.page.markup import Cell, Code, joined
from pipeline.report.page.page import fold, paragraph, table
from pipeline.report.show.card import card_sections
from pipeline.report.show.outputs import Run

NUM_OPEN = 10
# The page has metrics and slices as pictures and tables of its own.
CARD_PARTS = ("Intended use", "Data", "Model", "Training", "Limits", "Lineage")
# A larger picture is left where it is.
MAX_PICTURE = 2_000_000
VERSIONS = "stages/versions.yaml"


def mistakes(run: Run) -> Iterator[str]:
    """Yield the wrong rows that the model was surest about, or the values furthest off."""
    rows = run.tables.get("evaluate/mistakes.csv")
    if rows is None:
        return
    if not rows:
        yield paragraph("No test row is wrong.")
        return
    heads = [name.replace("_", " ") for name in rows[0]]
    cells: list[tuple[Cell, ...]] = [tuple(row.values()) for row in rows]
    yield table(heads, cells[:NUM_OPEN])
    if len(cells) > NUM_OPEN:
        yield fold(f"{len(cells) - NUM_OPEN} more", table(heads, cells[NUM_OPEN:]))
    features = run.records.get("prepare/schema.json", {}).get("features", [])
    if not any(feature.get("kind") == "image" for feature in features) or not run.mistakes:
        return
    if len(run.mistakes) > MAX_PICTURE:
        yield paragraph("Their images are in data/evaluate/mistakes.png.")
        return
    content = base64.b64encode(run.mistakes).decode("ascii")
    image = f'<img alt="The images of these rows" src="data:image/png;base64,{content}">'
    yield f"<figure><figcaption>Their images, in this order</figcaption>{image}</figure>"


def card(run: Run) -> Iterator[str]:
    """Yield what the model card says beside metrics and slices, each part to be unfolded."""
    found = card_sections(run.card)
    for number, title in enumerate(each for each in CARD_PARTS if found.get(each)):
        yield fold(title, found[title], is_open=number == 0)


def lineage(run: Run) -> Iterator[str]:
    """Yield the commit, the machine, what each stage read, and the libraries."""
    commit = try_git(Path(), "rev-parse", "--short", "HEAD").stdout.strip()
    if commit:
        # Without its lock, so that who commits meanwhile is not stopped.
        asked = "--no-optional-locks", "status", "--porcelain", "--untracked-files=no"
        edits = try_git(Path(), *asked).stdout.strip()
        state = "with edits that are not committed" if edits else "without edits"
        yield paragraph(f"The folder stands at commit {commit}, {state}.")
    machine = run.records.get("train/machine.json")
    if machine is not None:
        words = (machine.get(name) for name in ("device", "processor", "architecture"))
        yield paragraph(f"Trained on: {', '.join(str(word) for word in words if word)}.")
    rows = [(name, Code(entry.get("cmd", "")), _read(entry)) for name, entry in run.locked.items()]
    if rows:
        yield paragraph("What each stage read, with the beginning of its MD5, as dvc.lock has it.")
        yield table(("stage", "command", "read"), rows)
    versions = _versions(run.locked)
    if versions:
        shown = table(("library", "version"), list(versions.items()))
        yield fold(f"{len(versions)} libraries", shown)


def _read(entry: Mapping[str, Any]) -> Cell:
    """The data that a stage depends on; its code is in the commit."""
    deps = [
        dep
        for dep in entry.get("deps", [])
        # In dvc.yaml the path of a key that is null is the file 'None'.
        if not dep["path"].startswith("stages/") and dep["path"] != "None"
    ]
    return joined(Code(f"{dep['path']} {str(dep.get('md5', ''))[:8]}") for dep in deps)


def _versions(locked: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in locked.values():
        found |= entry.get("params", {}).get(VERSIONS) or {}
    return dict(sorted(found.items()))
