"""A file of the zoo stands alone: what it may import is what every model's stages declare anyway.

That is what `stages.model.model`, `layers`, `line` and `dropout` reach, libraries included. So the
dependencies of a stage don't follow from which models there are, and a new one reruns nothing.
"""

import sys
from pathlib import Path

from pipeline.deps.import_closure import (
    BEHIND,
    PROJECT,
    Closure,
    Import,
    find_closure,
    find_extras,
    read_imports,
)
from stages.common.errors import Problem, UserError

ZOO = Path("stages/zoo/models")
DATASETS = Path("stages/zoo/datasets")
LAYERS = Path("stages/model/layers.py")
# What loads a model, and what models are made of.
_ALLOWED = (
    "stages.model.model",
    "stages.model.layers",
    "stages.model.dropout",
    "stages.model.line",
)
# And what an objective is called with.
_ALLOWED_OBJECTIVES = (*_ALLOWED, "stages.tensors.objective")
OBJECTIVES = Path("stages/zoo/objectives")


def model_files() -> list[Path]:
    """The models there are."""
    return sorted(ZOO.glob("[!_]*.py"))


def objective_files() -> list[Path]:
    """The objectives there are."""
    return sorted(OBJECTIVES.glob("[!_]*.py"))


def dataset_files() -> list[Path]:
    """The datasets there are. What they import is declared for the stages that train."""
    return sorted(DATASETS.glob("[!_]*.py"))


def find_allowed() -> Closure:
    """The files and libraries that a model may import."""
    return find_closure(*_ALLOWED)


def find_allowed_objectives() -> Closure:
    """The files and libraries that an objective may import."""
    return find_closure(*_ALLOWED_OBJECTIVES)


def check_alone(*files: Path) -> None:
    """Stop unless each of `files`, models or objectives of the zoo, imports only what it may.

    Raises UserError with every import that is too many, and where it stands.
    """
    problems = []
    for of_files in (
        [file for file in files if OBJECTIVES not in file.parents],
        [file for file in files if OBJECTIVES in file.parents],
    ):
        if of_files:
            is_model = OBJECTIVES not in of_files[0].parents
            allowed = find_allowed() if is_model else find_allowed_objectives()
            problems += _find_too_many(of_files, allowed)
    if problems:
        raise UserError(*problems)


def _find_too_many(files: list[Path], allowed: Closure) -> list[Problem]:
    libraries = {statement.name.split(".")[0] for statement in allowed.libraries}
    problems: list[Problem] = []
    for file in files:
        for statement in read_imports(file):
            if statement.name.split(".")[0] in PROJECT:
                problem = _check_project(statement, allowed)
            else:
                problem = _check_library(statement, libraries)
            if problem is not None and problem not in problems:
                problems.append(problem)
    return problems


def _check_project(statement: Import, allowed: Closure) -> Problem | None:
    path = Path(*statement.name.split("."))
    if path.is_dir() or path.with_suffix(".py") in allowed.files:
        return None
    place = f"{statement.file}:{statement.line}: imports '{statement.name}', but"
    if ZOO in path.parents:
        return Problem(
            f"{place} a model stands alone: what several share belongs in {LAYERS}, or is copied"
        )
    names = [".".join(file.with_suffix("").parts) for file in allowed.files if file.stem[0] != "_"]
    who, stage = ("a model", "with a model")
    if OBJECTIVES in statement.file.parents:
        who, stage = ("an objective", "that trains")
    return Problem(
        f"{place} {who} may import from the project what every stage {stage} declares",
        allowed=tuple(names),
    )


def _check_library(statement: Import, libraries: set[str]) -> Problem | None:
    name = statement.name
    first = name.split(".")[0]
    behind = any(f"{name}.".startswith(f"{module}.") for module in BEHIND)
    if first in sys.stdlib_module_names or (first in libraries and not behind):
        return None
    if first in find_extras(statement.file):
        return None
    return Problem(
        f"{statement.file}:{statement.line}: imports '{name}', which no stage with a model "
        f"declares: import it in {LAYERS} and take from there what the model needs, then run "
        f"'reprise deps' (once, and all stages with a model run again)\n"
        f"  allowed  {', '.join(sorted(libraries - sys.stdlib_module_names))}, and Python's own"
    )
