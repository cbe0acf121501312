"""The objective of a step, by name: the one place that loads a file of `stages/zoo/objectives`."""

import importlib
import inspect
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import torch
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
# What an objective is given in their order, and its `arguments` by name.
CALLED_WITH = ("model", "batch", "target", "loss_fn", "rng")

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
    if not (isinstance(loss, Tensor) and loss.shape == () and isinstance(logged, dict)):
        message = (
            f"the objective gives {_kind(loss)}; the mean over rows is needed, a tensor (), alone "
            "or with a dict of what to log"
        )
        raise _wrong(message, objective)
    if torch.is_grad_enabled() and not loss.requires_grad:
        message = (
            "the objective gives a loss that no weight has a part in, so that nothing can be "
            "learned from it: is it detached, or made by .item() or under no_grad?"
        )
        raise _wrong(message, objective)
    return loss, {name: _as_mean(name, logged[name], loss, objective) for name in logged}


def check_logged(before: Collection[str], logged: Logged, objective: Objective) -> None:
    """Stop where a step logs other names than earlier ones did, whose means are over all steps."""
    if before and set(before) != set(logged):
        was, now = (", ".join(sorted(names)) for names in (before, logged))
        message = f"the objective logs {now}, and earlier steps logged {was}: log the same in each"
        raise _wrong(message, objective)


def _as_mean(name: object, value: object, loss: Tensor, objective: Objective) -> Tensor:
    """A number to log as a tensor (). Raises UserError for anything else."""
    if isinstance(name, str) and isinstance(value, Tensor) and value.shape == ():
        return value
    if isinstance(name, str) and isinstance(value, int | float):
        return loss.new_tensor(float(value))
    message = (
        f"the objective logs {name!r}: {_kind(value)}; a name and a mean over rows are needed, a "
        "tensor () or a number"
    )
    raise _wrong(message, objective)


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return type(value).__name__


def _wrong(message: str, objective: Objective) -> UserError:
    """The error of what an objective gives, at its function."""
    function = objective.func if isinstance(objective, partial) else objective
    return problem_of(message, function, Problem(message, AT))


def _zoo_module(name: str) -> Any:
    with own_errors(f"the objective '{name}' can't be loaded"):
        module = importlib.import_module(f"stages.zoo.objectives.{name}")
    require(module, f"the objective '{name}'", Arguments=BaseModel)
    if not callable(getattr(module, "objective", None)):
        message = f"the objective '{name}' has no function 'objective' ({HOW})"
        raise UserError(at_line(message, (f"{OBJECTIVES}/{name}.py", 1)))
    try:
        inspect.signature(module.objective).bind(*CALLED_WITH, arguments=None)
    except TypeError as error:
        message = (
            f"the objective '{name}' can't be called with ({', '.join(CALLED_WITH)}, arguments): "
            f"{error}"
        )
        raise problem_of(message, module.objective, Problem(message, AT)) from None
    return module
