"""The names that `dvc.yaml` builds paths from: `${prepare.source}`, the file of a model.

DVC stops at one that leads nowhere with a bare 'No such file', and has removed outputs by then.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.common.errors import Problem, did_you_mean
from stages.common.params import DVC_FILE, TEMPLATE
from stages.common.section import subtree
from stages.common.yamlfile import read_yaml


def check_paths(tree: Mapping[str, Any], *, fetched: bool = True) -> list[Problem]:
    """What is wrong with the paths that `dvc.yaml` takes from `tree`, each mistake once.

    With `fetched=False`, what DVC tracks may be missing.
    """
    problems: dict[str, Problem] = {}
    for stage in read_yaml(DVC_FILE)["stages"].values():
        for dep in stage.get("deps", []):
            for key in TEMPLATE.findall(str(dep)):
                problem = _check_path(str(dep), key, tree, fetched=fetched)
                if problem is not None:
                    problems[key] = problem
    return list(problems.values())


def _check_path(dep: str, key: str, tree: Mapping[str, Any], *, fetched: bool) -> Problem | None:
    try:
        value = subtree(tree, key)
    except KeyError:
        return None  # the section's own check has said so
    if not isinstance(value, str) or not value:
        return None
    path = Path(dep.replace(f"${{{key}}}", value))
    if path.exists() or TEMPLATE.search(str(path)) is not None:
        return None
    if key == "build.model.name":
        return None  # the schema has said so, with the models there are
    if Path(f"{path}.dvc").exists():
        if not fetched:
            return None
        message = f"{path} has not been fetched: run 'dvc pull {path}'"
        return Problem(message, key, value)
    folder = path.parent
    beside = sorted(str(p) for p in folder.glob("[!.]*")) if folder.is_dir() else []
    what = f"the file {path} does not exist" if folder.is_dir() else f"there is no folder {folder}"
    suggestion = did_you_mean(str(path), beside)
    return Problem(what, key, value, tuple(beside), suggestion)
