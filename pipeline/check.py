"""The whole of `params.yaml`, before anything runs: `reprise check`.

The typed sections are those of the stages; what a name brings with it (a model, an optimizer)
is checked against the generated `stages/params.schema.json`, so torch is never imported.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.named import check_named, read_schema
from pipeline.paths import check_paths
from pipeline.zoo import ZOO, check_alone
from stages.build.params import BuildParams
from stages.common.errors import Problem, UserError, shorten, wrong_name
from stages.common.params import PARAMS
from stages.common.section import Overrides, apply_overrides, subtree, validate_all
from stages.common.yamlfile import read_yaml
from stages.evaluate.params import GatedEvaluateParams
from stages.infer.params import InferParams
from stages.prepare.params import PrepareParams
from stages.train.params import TrainParams
from stages.tune.params import TuneParams, check_space

SECTIONS: dict[str, type[BaseModel]] = {
    "prepare": PrepareParams,
    "build": BuildParams,
    "tune": TuneParams,
    "train": TrainParams,
    "evaluate": GatedEvaluateParams,
    "infer": InferParams,
}
RWLOCK = Path(".dvc/tmp/rwlock")
RESTORE = (
    "if 'dvc repro' has stopped at this and removed outputs: mend it and run it again; they come "
    "back from the cache"
)
# What stands beside a name depends on the name.
NAMED = {"build": ("model",), "train": ("loss", "optimizer", "schedule")}


def check_params() -> None:
    """Stop unless every stage can start with this `params.yaml`.

    Raises UserError with all that is wrong in it: keys, types, names, arguments, the search
    space, and the files that `dvc.yaml` takes from it.
    """
    _check_rwlock()
    problems = find_problems(read_yaml(PARAMS))
    if problems:
        error = UserError(*problems)
        error.add_note(RESTORE)
        raise error


def find_problems(tree: object) -> list[Problem]:
    """All that is wrong with `tree`, the content of a `params.yaml`."""
    if not isinstance(tree, Mapping):
        return [Problem(f"{PARAMS} must be a list of sections: seed, {', '.join(SECTIONS)}")]
    schema = read_schema()
    problems = _check_top(tree)
    typed: dict[str, Any] = {}
    for name in SECTIONS:
        if name in tree:
            found, typed[name] = _check_section(name, tree[name], schema)
            problems += found
    problems += _check_metrics(tree, schema)
    if typed.get("tune") is not None:
        problems += _check_tune(typed["tune"], tree, schema)
    return problems + check_models(tree) + check_paths(tree)


def _check_rwlock() -> None:
    """Stop at a list of DVC's running commands that a killed one left half written.

    DVC does not write it atomically, and refuses every command while it can't read it.
    """
    if RWLOCK.exists():
        try:
            json.loads(RWLOCK.read_bytes())
        except ValueError:
            raise UserError(
                f"{RWLOCK} is damaged: a 'dvc' was killed while it wrote this file\n"
                f"  when no other 'dvc' runs in this folder: rm {RWLOCK}"
            ) from None


def _check_top(tree: Mapping[str, Any]) -> list[Problem]:
    known = ("seed", *SECTIONS)
    problems = [
        replace(wrong_name(f"unknown section '{name}'", str(name), known, str(name)), value=None)
        for name in tree
        if name not in known
    ]
    problems += [
        Problem(f"the section '{name}' is missing", key=name) for name in known if name not in tree
    ]
    seed = tree.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        message = "the seed must be a whole number, 0 or more"
        problems.append(Problem(message, key="seed", value=shorten(seed)))
    return problems


def _check_section(
    name: str, part: object, schema: Mapping[str, Any]
) -> tuple[list[Problem], BaseModel | None]:
    """The mistakes of a section, and the section when it has none of its own."""
    problems, section = validate_all(SECTIONS[name], part, at=name)
    for inner in NAMED.get(name, ()):
        if isinstance(part, Mapping) and isinstance(part.get(inner), Mapping):
            problems += check_named(part[inner], f"{name}.{inner}", schema)
    return problems, section


def _check_metrics(tree: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Problem]:
    """Names of metrics; those of the task where `prepare.task` says which."""
    by_task = schema["$defs"]["GatedEvaluateParams"]["properties"]["metrics"]["items"]["x-tasks"]
    names, task = _find(tree, "evaluate.metrics"), _find(tree, "prepare.task")
    tasks = [task] if task in by_task else list(by_task)
    known = [metric for each in tasks for metric in by_task[each]]
    what = f" for {task}" if task in by_task else ""
    return [
        wrong_name(f"there is no metric '{name}'{what}", name, known, f"evaluate.metrics.{index}")
        for index, name in enumerate(names if isinstance(names, list) else [])
        if isinstance(name, str) and name not in known
    ]


def _check_tune(
    section: TuneParams, tree: Mapping[str, Any], schema: Mapping[str, Any]
) -> list[Problem]:
    """The search space: each of its values in the place of what it would replace."""

    def check(overrides: Overrides) -> None:
        for name in ("build", "train"):
            changed = apply_overrides(tree[name], overrides, name)
            found = [
                problem
                for problem in _check_section(name, changed, schema)[0]
                # What is wrong without the override has been said at its own key.
                if problem.key is not None and any(problem.key.startswith(p) for p in overrides)
            ]
            if found:
                raise UserError(*found)

    try:
        check_space(section, check)
    except UserError as error:
        return error.problems
    return []


def check_models(tree: Mapping[str, Any]) -> list[Problem]:
    """Imports of the named model that a model may not have: its stages would stop at them."""
    name = _find(tree, "build.model.name")
    file = ZOO / f"{name}.py"
    if not isinstance(name, str) or not file.is_file():
        return []  # said elsewhere
    try:
        check_alone(file)
    except UserError as error:
        return [replace(p, key="build.model.name", value=name) for p in error.problems]
    return []


def _find(tree: Mapping[str, Any], key: str) -> object:
    try:
        return subtree(tree, key)
    except KeyError:
        return None
