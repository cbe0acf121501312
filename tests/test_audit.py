"""No stage reads what it does not declare: each runs under an audit hook that sees every open."""

import json
from pathlib import Path

import pytest

from tests.conftest import Project

STAGES = ["prepare", "build", "tune", "train", "evaluate", "infer"]

# Runs `python -m stages.X` with a hook that notes every file of the project that is opened.
HOOK = """
import importlib.util, json, os, runpy, sys
stage, report = sys.argv[1], sys.argv[2]
root, seen = os.path.realpath(os.getcwd()), set()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.endswith(".pyc"):
            path = importlib.util.source_from_cache(path)
        if path.startswith(root + os.sep):
            seen.add(os.path.relpath(path, root))
sys.addaudithook(hook)
sys.argv = [f"stages.{stage}"]
sys.path.insert(0, root)
try:
    runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
finally:
    json.dump(sorted(seen), open(report, "w"))
"""

# What every stage may read: what DVC itself tracks of it, and where to restore from.
ALWAYS = {"params.yaml", "dvc.yaml", "stages/versions.yaml"}


def declared(project: Project, stage: str) -> list[str]:
    lock = project.run("python", "-c", LIST_LOCK, stage).stdout
    paths: list[str] = json.loads(lock)
    return paths


LIST_LOCK = """
import json, sys
from ruamel.yaml import YAML
entry = YAML(typ="safe").load(open("dvc.lock"))["stages"][sys.argv[1]]
print(json.dumps([d["path"] for d in entry["deps"]] + [o["path"] for o in entry["outs"]]))
"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_opens_only_what_it_declares(clone: Project, stage: str, tmp_path: Path) -> None:
    report = tmp_path / "opened.json"
    clone.run("python", "-c", HOOK, stage, str(report))
    opened: list[str] = json.loads(report.read_text(encoding="utf-8"))
    known = declared(clone, stage)
    undeclared = [
        path
        for path in opened
        if path not in ALWAYS
        and not path.startswith(("data/.writing/", "data/tensorboard/", ".reprise/"))
        and (clone.path / path).is_file()
        and not any(path == dep or path.startswith(f"{dep}/") for dep in known)
    ]
    assert undeclared == []
    # The hook must have seen the stage work, else this test proves nothing.
    assert f"stages/{stage}/__main__.py" in opened
    assert any(path.startswith("data/") for path in opened)
