"""The names that `dvc.yaml` builds paths from: `${prepare.source}`, the file of a model.

DVC stops at one that leads nowhere with a bare 'No such file', and has removed outputs by then.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.common.bring_in import is_address, tell_address
from stages.common.addresses import is_object
from stages.common.config import get_path
from stages.common.errors import Problem, did_you_mean
from stages.common.files import find_odd
from stages.common.params import DVC_FILE, TEMPLATE, read_variables
from stages.common.yamlfile import read_yaml

Stages = Mapping[str, Mapping[str, Any]]

# Of a path that a later stage, or the stage itself, would overwrite.
OTHER_FILE = "take a file that no stage writes"


def check_paths(tree: Mapping[str, Any], *, fetched: bool = True) -> list[Problem]:
    """Mistakes in the paths that `dvc.yaml` takes from `tree`, each once.

    With `fetched=False`, what DVC tracks may be missing.
    """
    problems: dict[str, Problem] = {}
    pipeline = read_yaml(DVC_FILE)
    stages: Stages = pipeline["stages"]
    variables = read_variables(pipeline)
    for name, stage in stages.items():
        for dep in map(str, stage.get("deps", [])):
            filled = TEMPLATE.sub(lambda match: str(variables.get(match[1], match[0])), dep)
            for key in TEMPLATE.findall(filled):
                problem = _check_path(filled, key, tree, name, stages, fetched=fetched)
                if problem is None and dep != filled:
                    problem = _check_null(filled, key, tree, stage)
                if problem is not None:
                    problems[key] = problem
    return list(problems.values())


def _check_path(
    dep: str, key: str, tree: Mapping[str, Any], stage: str, stages: Stages, *, fetched: bool
) -> Problem | None:
    try:
        value = get_path(tree, key)
    except KeyError:
        return None  # the section's own check has said so
    if not isinstance(value, str) or not value:
        return None
    path = Path(dep.replace(f"${{{key}}}", value))
    if TEMPLATE.search(str(path)) is not None:
        return None
    if is_object(value):
        return None  # said by who asked for it
    if is_address(value):
        return Problem(tell_address(value, f"{key}: {{}} in params.yaml"), key)
    makers = [
        name for name, other in stages.items() if any(_overlap(path, o) for o in _outs(other))
    ]
    # Which come after is asked only where one writes it: that takes half a second.
    if makers and (later := set(makers) & _downstream(stage, stages)):
        message = f"{path} holds what the stage '{min(later)}' writes, which comes after '{stage}'"
        if later == {stage}:
            message = f"{path} holds what the stage '{stage}' itself writes"
        return Problem(f"{message}: {OTHER_FILE}", key, value)
    if makers:
        return None
    if path.exists():
        odd = find_odd(path)
        return None if odd is None else Problem(f"{odd}: remove it, or give it a name", key, value)
    if key in ("build.model.name", "train.objective.name"):
        return None  # the schema has said so, with the names there are
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


def _check_null(
    dep: str, key: str, tree: Mapping[str, Any], stage: Mapping[str, Any]
) -> Problem | None:
    """The mistake in a path that may be null: in its file, or in the file that null stands for."""
    try:
        value = get_path(tree, key)
    except KeyError:
        return None
    path = Path(dep.replace(f"${{{key}}}", str(value)))
    if value is None:
        if path.exists():
            return None
        message = f"the file '{path}', which a null stands for in {DVC_FILE}, is gone: "
        return Problem(message + f"git checkout -- {path}", key, "null")
    others = {Path(str(other)) for other in stage.get("deps", []) if "${" not in str(other)}
    if Path(os.path.normpath(path)) in others:
        return Problem(f"{path} is a dependency anyway: write null for it", key, str(value))
    return None


def _outs(stage: Mapping[str, Any]) -> Iterator[Path]:
    """All that a stage writes."""
    for kind in ("outs", "metrics", "plots"):
        for entry in stage.get(kind, []):
            yield Path(next(iter(entry)) if isinstance(entry, Mapping) else str(entry))


def _overlap(one: Path, other: Path) -> bool:
    """Check whether two paths are the same, or one lies in the other."""
    here, there = one.resolve(), other.resolve()
    return here == there or here in there.parents or there in here.parents


def _downstream(stage: str, stages: Stages) -> set[str]:
    """A stage and those that need what it writes, by the paths that no parameter changes."""
    found, waiting = {stage}, [stage]
    while waiting:
        outs = list(_outs(stages[waiting.pop()]))
        for name, other in stages.items():
            deps = [Path(str(dep)) for dep in other.get("deps", []) if "${" not in str(dep)]
            if name not in found and any(_overlap(dep, out) for dep in deps for out in outs):
                found.add(name)
                waiting.append(name)
    return found
