"""The whole of `params.yaml`, before anything runs: `reprise check`.

The typed sections are those of the stages; what a name brings with it (a model, an optimizer)
is checked against the generated `stages/params.schema.json`, so torch is never imported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from pipeline.meta import read_metas
from pipeline.named import check_named, read_schema
from pipeline.paths import check_paths
from pipeline.zoo import ZOO, check_alone
from stages.build.params import BuildParams
from stages.common.errors import Problem, UserError, wrong_name
from stages.common.params import DVC_FILE, PARAMS
from stages.common.section import (
    Overrides,
    apply_overrides,
    check_seed,
    subtree,
    validate_all,
)
from stages.common.yamlfile import read_yaml
from stages.evaluate.params import GatedEvaluateParams, check_gates
from stages.infer.params import InferParams
from stages.prepare.params import PrepareParams
from stages.train.params import TrainParams
from stages.train.together import (
    check_averages,
    check_calibration,
    check_class_weights,
    check_closure,
    check_images,
    check_parallel,
)
from stages.tune.params import TuneParams, check_space

SECTIONS: dict[str, type[BaseModel]] = {
    "prepare": PrepareParams,
    "build": BuildParams,
    "tune": TuneParams,
    "train": TrainParams,
    "evaluate": GatedEvaluateParams,
    "infer": InferParams,
}
RESTORE = (
    "if 'dvc repro' has stopped at this and removed outputs: mend it and run it again; they come "
    "back from the cache"
)
UNSEEN = ("size", "nfiles")
# Of other tables it takes a look at the rows to know.
IMAGELESS = (".csv", ".tsv")
# What stands beside a name depends on the name.
NAMED = {"build": ("model",), "train": ("dataset", "loss", "optimizer", "schedule")}
# What depends on the task, by its key.
OF_TASK = {
    "evaluate.metrics": "metric",
    "train.loss.name": "loss",
    "train.early_stopping.metric": "metric to watch",
}


def check_params(*, fetched: bool = True) -> None:
    """Stop unless every stage can start with this `params.yaml`.

    With `fetched=False`, inputs that DVC tracks need not have been pulled.

    Raises UserError with all that is wrong in it: keys, types, names, arguments, the search
    space, and the files that `dvc.yaml` takes from it; and with what is wrong in its `meta:`.
    """
    problems = find_problems(read_yaml(PARAMS), fetched=fetched) + _check_meta()
    if problems:
        error = UserError(*problems)
        error.add_note(RESTORE)
        raise error


def find_problems(tree: object, *, fetched: bool = True) -> list[Problem]:
    """All that is wrong with `tree`, the content of a `params.yaml`; see `check_params`."""
    if not isinstance(tree, Mapping):
        return [Problem(f"{PARAMS} must be a list of sections: seed, {', '.join(SECTIONS)}")]
    schema = read_schema()
    problems = _check_top(tree) + _check_keys(tree)
    typed: dict[str, Any] = {}
    for name in SECTIONS:
        if name in tree:
            found, typed[name] = _check_section(name, tree[name], schema)
            problems += found
    of_task = _check_task(tree, schema)
    problems += of_task
    train = typed.get("train")
    if train is not None:
        task = str(_find(tree, "prepare.task"))
        problems += check_calibration(train.calibration, task)
        problems += check_class_weights(train.class_weights, task)
    prepare = typed.get("prepare")
    if train is not None and prepare is not None and prepare.source.lower().endswith(IMAGELESS):
        problems += check_images(train.channels_last, train.augment)
    gated = typed.get("evaluate")
    # A metric that is misspelt is no reason to doubt the gate that spells it rightly.
    if gated is not None and not any(p.key.startswith("evaluate.") for p in of_task if p.key):
        problems += check_gates(gated.gates, gated.metrics)
    if typed.get("tune") is not None:
        problems += _check_tune(typed["tune"], tree, schema)
    problems += check_models(tree)
    told = {problem.key for problem in problems}
    found = check_paths(tree, fetched=fetched)
    return problems + [problem for problem in found if problem.key not in told]


def _check_meta() -> list[Problem]:
    """What is wrong with how `dvc.yaml` says that stages are run."""
    stages = read_yaml(DVC_FILE)["stages"]
    try:
        # A `foreach` or `matrix` stage says it once for all.
        read_metas({n: s.get("do", s).get("meta") or {} for n, s in stages.items()})
    except UserError as error:
        return error.problems
    return []


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
    seed = check_seed(tree.get("seed", 0))
    return problems if seed is None else [*problems, seed]


def _check_keys(tree: object, at: str = "") -> list[Problem]:
    """Keys that DVC's run-cache leaves out of account, as it does the sizes of files.

    With another value, it would bring back the outputs of the first.
    """
    problems: list[Problem] = []
    items: Iterable[tuple[object, object]] = ()
    if isinstance(tree, Mapping):
        items = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    for name, value in items:
        key = f"{at}.{name}" if at else str(name)
        if name in UNSEEN:
            message = f"no key can be named '{name}': DVC's cache would not see its value change"
            problems.append(Problem(message, key=key))
        problems += _check_keys(value, key)
    return problems


def _check_section(
    name: str, part: object, schema: Mapping[str, Any]
) -> tuple[list[Problem], BaseModel | None]:
    """The mistakes of a section, and the section when it has none of its own."""
    problems, section = validate_all(SECTIONS[name], part, at=name)
    if isinstance(section, TrainParams):
        problems += check_averages(section) + check_parallel(section)
        if section.optimizer.name in schema["x-closures"]:
            problems += check_closure(section)
    for inner in NAMED.get(name, ()):
        if isinstance(part, Mapping) and isinstance(part.get(inner), Mapping):
            problems += check_named(part[inner], f"{name}.{inner}", schema)
    return problems, section


def _check_task(tree: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Problem]:
    """Names that a task has or has not: those of all tasks unless `prepare.task` says which."""
    by_task: Mapping[str, Mapping[str, list[str]]] = schema["x-tasks"]
    task = _find(tree, "prepare.task")
    problems = []
    for place, kind in OF_TASK.items():
        everywhere = [name for names in by_task[place].values() for name in names]
        known = by_task[place].get(str(task), everywhere)
        what = "" if known is everywhere else f" for {task}"
        found = _find(tree, place)
        if isinstance(found, list):
            names = {f"{place}.{index}": name for index, name in enumerate(found)}
        else:
            # Of a name that no task has, the check of the section tells.
            names = {place: found} if found in everywhere else {}
        for key, name in names.items():
            if isinstance(name, str) and name not in known:
                problems.append(wrong_name(f"there is no {kind} '{name}'{what}", name, known, key))
    return problems


def _check_tune(
    section: TuneParams, tree: Mapping[str, Any], schema: Mapping[str, Any]
) -> list[Problem]:
    """The search space: each of its values in the place of what it would replace."""
    recipe = {
        name: tree[name] for name in ("build", "train") if isinstance(tree.get(name), Mapping)
    }
    stopping = _find(tree, "train.early_stopping")
    watched = stopping.get("metric") if isinstance(stopping, Mapping) else "loss"
    before = {name: _check_section(name, part, schema)[0] for name, part in recipe.items()}
    known = [problem for found in before.values() for problem in found] + _check_task(tree, schema)

    def check(overrides: Overrides) -> None:
        (path,) = overrides
        name = path.split(".")[0]
        if name not in recipe:
            return  # said of the section
        try:
            changed = apply_overrides(recipe[name], overrides, name)
        except (KeyError, TypeError):
            if before[name]:
                return  # its parents may be what is wrong there
            raise
        after = _check_section(name, changed, schema)[0]
        after += _check_task({**tree, name: changed}, schema)
        # What is wrong without the override has been said at its own key.
        if found := [problem for problem in after if problem not in known]:
            raise UserError(*found)

    try:
        check_space(section, check, str(watched))
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
