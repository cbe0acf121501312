"""The objections of torch and of the model to `params.yaml`, from a process that imports them.

It is started only when something that it looks at has changed since the last check.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.common.errors import Problem
from stages.common.files import read_json, write_json
from stages.formats.folders.folder_kind import find_manifests, list_shards

STAMP = Path(".reprise/rehearsed.json")
SECTIONS = ("prepare", "build", "train")
# What no constructor is given; of the epochs only a length that is written out depends.
UNSEEN = {
    "prepare": ("split", "expectations", "task"),
    "build": (),
    "train": (
        *("batch_size", "micro_batch_size", "early_stopping", "ema", "swa", "replicas"),
        *("folds", "ensemble"),
    ),
}
# The code that may answer, the zoo among it; whole rooms, which takes no reading of imports.
CODE = "stages/{}/**/*.py"
ROOMS = (
    *("common", "runtime", "features", "tensors", "formats", "parallel", "model", "zoo"),
    *("training", "prepare", "build", "tools"),
)


def rehearse(tree: Mapping[str, Any]) -> list[Problem]:
    """The mistakes of arguments that are right one by one, and of a model that the data denies."""
    request = {name: tree.get(name) for name in SECTIONS}
    if not all(isinstance(section, Mapping) for section in request.values()):
        return []  # said by those who read the sections
    text = json.dumps(request, sort_keys=True, default=str)
    stamp = _stamp(tree)
    if STAMP.exists():
        known = read_json(STAMP)
        if known.get("stamp") == stamp:
            return [_problem(entry) for entry in known["problems"]]
    command = [sys.executable, "-m", "stages.tools.rehearse"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().split("\n")[-1]
        print(f"note: what torch says of it could not be asked: {reason}", file=sys.stderr)
        return []
    problems = [_problem(entry) for entry in json.loads(done.stdout.splitlines()[-1])]
    STAMP.parent.mkdir(exist_ok=True)
    write_json(STAMP, {"stamp": stamp, "problems": [asdict(problem) for problem in problems]})
    return problems


def code_files() -> list[Path]:
    """The files whose edit may change the answer."""
    files = [path for room in ROOMS for path in Path().glob(CODE.format(room))]
    return sorted([Path("stages/__init__.py"), *files])


def _problem(entry: Mapping[str, Any]) -> Problem:
    return Problem(**{**entry, "allowed": tuple(entry["allowed"])})


def _stamp(tree: Mapping[str, Any]) -> str:
    """A digest of the request, of the code that answers it, and of how the source stands there."""
    seen = {
        name: {key: value for key, value in tree[name].items() if key not in UNSEEN.get(name, ())}
        for name in SECTIONS
    }
    if "total_steps" not in seen["train"]["schedule"]:
        del seen["train"]["epochs"]
    digest = hashlib.md5(json.dumps(seen, sort_keys=True, default=str).encode())
    for path in code_files():
        digest.update(str(path).encode() + path.read_bytes())
    source = Path(str(tree["prepare"].get("source")))
    folders = [Path(str(tree[name].get("pretrained"))) for name in ("prepare", "build")]
    of_models = [file for folder in folders for file in sorted(folder.glob("*.json"))]
    tables = [*find_manifests(source), *list_shards(source)[:1]] if source.is_dir() else []
    for path in (source, *tables, *folders, *of_models):
        if path.exists():
            state = path.stat()
            digest.update(f"{state.st_mtime_ns} {state.st_size}".encode())
    return digest.hexdigest()
