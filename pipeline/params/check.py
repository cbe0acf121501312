"""The whole of `params.yaml`, before anything runs: `reprise check`.

The typed sections are those of the stages; what a name brings with it (a model, an optimizer)
is checked against the generated `stages/params.schema.json`, so torch is never imported.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from pipeline.deps.zoo_imports import OBJECTIVES, ZOO, check_alone
from pipeline.params.object_heads import name_problems, with_heads
from pipeline.params.paths import OTHER_FILE, check_paths
from pipeline.params.rehearsal import rehearse
from pipeline.params.schema_check import check_named, read_schema
from pipeline.params.source_check import Target, check_data
from pipeline.params.stage_meta import read_metas
from pipeline.params.task_check import check_guess, check_task, check_task_gates
from stages.build.params import BuildParams
from stages.common.config import (
    MissingKeyError,
    Overrides,
    apply_overrides,
    check_seed,
    get_path,
    validate_all,
)
from stages.common.errors import Problem, UserError, wrong_name
from stages.common.params import DVC_FILE, PARAMS
from stages.common.yamlfile import read_yaml
from stages.evaluate.params import GatedEvaluateParams, check_calendars, check_gates
from stages.infer.params import InferParams
from stages.prepare.params import PrepareParams
from stages.training.compatibility import (
    check_averages,
    check_calibration,
    check_class_weights,
    check_closure,
    check_folds,
    check_images,
    check_members,
    check_parallel,
)
from stages.training.params import TrainParams
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
# Raises UserError for overrides that make no valid recipe.
Check = Callable[[Overrides], None]
# Of other tables it takes a look at the rows to know.
IMAGELESS = (".csv", ".tsv")
# What stands beside a name depends on the name.
NAMED = {"build": ("model",), "train": ("dataset", "loss", "objective", "optimizer", "schedule")}


def check_params(*, fetched: bool = True) -> None:
    """Stop unless every stage can start with this `params.yaml`.

    With `fetched=False`, inputs that DVC tracks need not have been pulled.

    Raises UserError with all that is wrong in it: keys, types, names, arguments, the search
    space, and the files that `dvc.yaml` takes from it; and with what is wrong in its `meta:`.
    """
    tree, of_objects = with_heads(read_yaml(PARAMS))
    problems = in_order([*of_objects, *_find_problems(tree, fetched=fetched)]) + _check_meta()
    # What torch's own constructors and the model say, once names and types are right.
    if not any(_section_of(problem) in (None, "build", "train") for problem in problems):
        problems = in_order([*problems, *rehearse(tree)])
    problems = name_problems(problems)
    if problems:
        error = UserError(*problems)
        error.add_note(RESTORE)
        raise error


def find_problems(tree: object, *, fetched: bool = True) -> list[Problem]:
    """All that is wrong with `tree`, the content of a `params.yaml`; see `check_params`."""
    tree, of_objects = with_heads(tree)
    return name_problems(in_order([*of_objects, *_find_problems(tree, fetched=fetched)]))


def _find_problems(tree: object, *, fetched: bool) -> list[Problem]:
    """The same of a tree in which heads stand for objects in storage."""
    if not isinstance(tree, Mapping):
        return [Problem(f"{PARAMS} must be a list of sections: seed, {', '.join(SECTIONS)}")]
    schema = read_schema()
    problems = _check_top(tree) + _check_keys(tree)
    typed: dict[str, Any] = {}
    for name in SECTIONS:
        if name in tree:
            found, typed[name] = _check_section(name, tree[name], schema)
            problems += found
    of_paths = check_paths(tree, fetched=fetched)
    # What is in a file that can't be the one is no news.
    wrong_files = [problem for problem in of_paths if problem.message.endswith(OTHER_FILE)]
    known_keys = {problem.key for problem in (*problems, *wrong_files)}
    right = not any(problem.key == "prepare.source" for problem in of_paths)
    source = typed.get("prepare") if right else None
    of_data, target = check_data(tree, source, typed.get("infer"))
    problems += [problem for problem in of_data if problem.key not in known_keys]
    of_task = check_task(tree, schema, target)
    problems += check_guess(of_task, tree, schema, target) + of_task
    train, task = typed.get("train"), str(target.task)
    if train is not None:
        problems += check_calibration(train.calibration, task)
        section = typed.get("prepare")
        problems += check_folds(train, ordered=section is not None and section.ordered)
        problems += check_class_weights(train.class_weights, task)
    prepare = typed.get("prepare")
    if train is not None and prepare is not None and prepare.source.lower().endswith(IMAGELESS):
        problems += check_images(train.channels_last, train.augment)
    gated = typed.get("evaluate")
    # A metric that is misspelt is no reason to doubt the gate that spells it rightly.
    if gated is not None and not any(p.key.startswith("evaluate.") for p in of_task if p.key):
        problems += check_gates(gated.gates, gated.metrics, gated.coverage, task)
    elif gated is not None:
        problems += check_task_gates(of_task, gated.gates)
    if gated is not None and prepare is not None:
        problems += check_calendars(gated.slices or [], prepare.calendars)
    tune, check = typed.get("tune"), _make_check(tree, schema, target)
    if tune is not None:
        problems += _check_tune(tune, tree, check)
    if train is not None:
        problems += _check_ensemble(train, tune, check)
    problems += check_models(tree)
    known_keys = {problem.key for problem in problems}
    return in_order(problems + [problem for problem in of_paths if problem.key not in known_keys])


def in_order(problems: list[Problem]) -> list[Problem]:
    """Upstream first: one edit of `prepare` often mends what is said of the sections after it."""
    order: list[str | None] = [None, "seed", *SECTIONS]

    def place(problem: Problem) -> int:
        section = _section_of(problem)
        return order.index(section) if section in order else 0

    return sorted(problems, key=place)


def _section_of(problem: Problem) -> str | None:
    return None if problem.key is None else problem.key.split(".")[0]


def _check_meta() -> list[Problem]:
    """Mistakes in the `meta:` of the stages in `dvc.yaml`."""
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


def _check_tune(section: TuneParams, tree: Mapping[str, Any], check: Check) -> list[Problem]:
    """The search space: each of its values in the place of what it would replace.

    Without trials nothing is searched, and it may be that of another model.
    """
    if section.trials == 0:
        return []
    stopping = _find(tree, "train.early_stopping")
    watched = stopping.get("metric") if isinstance(stopping, Mapping) else "loss"
    try:
        check_space(section, check, str(watched))
    except UserError as error:
        return error.problems
    return []


def _check_ensemble(train: TrainParams, tune: TuneParams | None, check: Check) -> list[Problem]:
    """The members of the ensemble, each with what it sets; or whether tune can propose some."""
    if isinstance(train.ensemble, list):
        return check_members(train.ensemble, check, "train.ensemble")
    if train.ensemble is None or tune is None:
        return []
    message = "tune proposes an ensemble where"
    if min(tune.trials, tune.keep_scores) < 2:
        key = "trials" if tune.trials < 2 else "keep_scores"
        message += f" tune.{key} is above 1, and it is {getattr(tune, key)}"
    elif not tune.space:
        message += " tune.space names keys to search, and it is empty"
    else:
        return []
    return [Problem(message, "train.ensemble", "tune", ("null", "a list of members"))]


def _make_check(tree: Mapping[str, Any], schema: Mapping[str, Any], target: Target) -> Check:
    """A check of overrides of the model and the training, for what they alone make wrong."""
    recipe = {
        name: tree[name] for name in ("build", "train") if isinstance(tree.get(name), Mapping)
    }
    before = {name: _check_section(name, part, schema)[0] for name, part in recipe.items()}
    known = [problem for found in before.values() for problem in found] + check_task(
        tree, schema, target
    )

    def check(overrides: Overrides) -> None:
        names = {path.split(".")[0] for path in overrides} & recipe.keys()
        changed: dict[str, Any] = {}
        for name in sorted(names):
            try:
                changed[name] = apply_overrides(recipe[name], overrides, name)
            except MissingKeyError:
                if before[name]:
                    return  # its parents may be what is wrong there
                raise
        after = [p for name in changed for p in _check_section(name, changed[name], schema)[0]]
        after += check_task({**tree, **changed}, schema, target)
        # What is wrong without the override has been said at its own key.
        if found := [problem for problem in after if problem not in known]:
            raise UserError(*found)

    return check


def check_models(tree: Mapping[str, Any]) -> list[Problem]:
    """Imports that the named model and objective may not have: their stages would stop at them."""
    problems = []
    for key, folder in (("build.model.name", ZOO), ("train.objective.name", OBJECTIVES)):
        name = _find(tree, key)
        file = folder / f"{name}.py"
        if not isinstance(name, str) or not file.is_file():
            continue  # said elsewhere
        try:
            check_alone(file)
        except UserError as error:
            problems += [replace(p, key=key, value=name) for p in error.problems]
    return problems


def _find(tree: Mapping[str, Any], key: str) -> object:
    try:
        return get_path(tree, key)
    except KeyError:
        return None
