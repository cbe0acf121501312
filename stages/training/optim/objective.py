"""The objective of a step, by name: the one place that loads a file of `stages/zoo/objectives`."""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import Tensor

from stages.common.config import ClassSpec, validate
from stages.common.errors import Problem, UserError, wrong_name
from stages.common.user_code import HOW, at_line, own_errors, problem_of, require
from stages.model.dropout import DropoutRng
from stages.tensors.batch import Batch
from stages.tensors.objective import Loss, Scores

OBJECTIVES = Path("stages/zoo/objectives")
AT = "train.objective"

# Means over the rows at hand () by the names that the history has them under.
Logged = dict[str, Tensor]
Objective = Callable[[Scores, Batch, Tensor, Loss, DropoutRng], Tensor | tuple[Tensor, Logged]]


def objective_names() -> list[str]:
    """The names that `train.objective` may have."""
    return sorted(path.stem for path in OBJECTIVES.glob("[!_]*.py"))


def objective_arguments(name: str) -> type[BaseModel]:
    """The typed arguments of an objective."""
    arguments: type[BaseModel] = _zoo_module(name).Arguments
    return arguments


def check_objective(named: ClassSpec) -> BaseModel:
    """The arguments of an objective, all spelt out. Raises UserError with what is wrong."""
    names = objective_names()
    if named.name not in names:
        message = f"there is no objective '{named.name}' in {OBJECTIVES}"
        raise UserError(wrong_name(message, named.name, names, f"{AT}.name"))
    return validate(objective_arguments(named.name), named.arguments, at=AT)


def make_objective(named: ClassSpec) -> Objective:
    """A function of model, batch, target, loss and random numbers. Raises UserError."""
    arguments = check_objective(named)
    return partial(_zoo_module(named.name).objective, arguments=arguments)


def unpack(found: object, objective: Objective) -> tuple[Tensor, Logged]:
    """The loss that an objective has given, and what it wants logged.

    Raises UserError for what is no loss, with the line of the function.
    """
    loss, logged = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
    if isinstance(loss, Tensor) and loss.shape == () and isinstance(logged, dict):
        return loss, logged
    what = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{type(loss).__name__}"
    message = (
        f"the objective gives {what}; the mean over rows is needed, a tensor (), alone or with a "
        "dict of what to log"
    )
    function = objective.func if isinstance(objective, partial) else objective
    raise problem_of(message, function, Problem(message, AT))


def _zoo_module(name: str) -> Any:
    with own_errors(f"the objective '{name}' can't be loaded"):
        module = importlib.import_module(f"stages.zoo.objectives.{name}")
    require(module, f"the objective '{name}'", Arguments=BaseModel)
    if not callable(getattr(module, "objective", None)):
        message = f"the objective '{name}' has no function 'objective' ({HOW})"
        raise UserError(at_line(message, (f"{OBJECTIVES}/{name}.py", 1)))
    return module
