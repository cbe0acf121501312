"""Checks of the section `train` before any data is loaded."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from stages.common.errors import Problem, UserError
from stages.common.user_code import own_errors
from stages.features.schema import Class
from stages.training.compatibility import (
    check_averages,
    check_class_weights,
    check_closure,
    check_parallel,
)
from stages.training.data.zoo_datasets import check_dataset
from stages.training.device.compile import check_compiler
from stages.training.optim.loss import make_loss
from stages.training.optim.monitored_metric import monitored_direction
from stages.training.optim.objective import check_objective
from stages.training.optim.optimizer import closures, make_optimizer, needs_closure
from stages.training.optim.param_groups import check_groups
from stages.training.optim.registry import Resolved, resolve
from stages.training.optim.schedule import make_schedule
from stages.training.params import NUM_CLASSES, TrainParams


def check_names(
    params: TrainParams,
    task: str,
    classes: Sequence[Class] | None = None,
    model: Callable[[], nn.Module] | None = None,
    *,
    by_row: bool = False,
) -> None:
    """Stop at every wrong name, argument or value before any data is loaded.

    `classes` are those of the target, and `model` makes one with the weights that groups name;
    None: they are not known. `by_row`: rows have weights. Raises UserError
    with all names and arguments that are wrong.
    """
    problems: list[Problem] = []
    resolved: list[Resolved] = []
    checks: list[Callable[[], object]] = [
        lambda: make_loss(
            params, task, num_classes=len(classes or ()) or NUM_CLASSES, by_row=by_row
        ),
        lambda: check_objective(params.objective),
        lambda: resolved.append(resolve("optimizer", params.optimizer)),
        lambda: resolve("schedule", params.schedule),
        lambda: monitored_direction(params, task),
        lambda: check_compiler(params.compile),
        lambda: None if params.dataset is None else check_dataset(params.dataset),
    ]
    if params.groups is not None and model is not None:
        checks.append(lambda: check_groups(params, model()))
    for check in checks:
        try:
            check()
        except UserError as error:
            problems += error.problems
    if params.optimizer.name in closures():
        problems += check_closure(params)
    problems += check_parallel(params)
    problems += check_class_weights(params.class_weights, task, classes)
    problems += check_averages(params)
    if problems:
        raise UserError(*problems)
    _rehearse(params, resolved[0])


def _rehearse(params: TrainParams, resolved: Resolved) -> None:
    """Two steps on nothing: an argument of the right type may still have a value that fails."""
    params = params.model_copy(update={"groups": None})
    weights = nn.ParameterList([torch.zeros(2, 2), torch.zeros(2)])
    optimizer = make_optimizer(weights, params, resolved)
    closures = [lambda: 0.0] if needs_closure(type(optimizer)) else []
    if closures:
        _rehearse_closure(params, resolved)
    schedule = make_schedule(optimizer, params, None, "min")
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    try:
        for _ in range(min(2, params.epochs)):
            optimizer.step(*closures)
            with own_errors(f"the schedule {params.schedule.name} can't take a step"):
                if isinstance(schedule, ReduceLROnPlateau):
                    schedule.step(0.0)
                else:
                    schedule.step()
    except UserError:
        raise
    except (ValueError, TypeError, ArithmeticError) as error:
        message = f"{params.schedule.name} can't take a step with these arguments: {error}"
        raise UserError(Problem(message, key="train.schedule")) from None


def _rehearse_closure(params: TrainParams, resolved: Resolved) -> None:
    """Two steps down a bowl, which must lead anywhere."""
    (weight,) = weights = nn.ParameterList([torch.zeros(2)])
    optimizer = make_optimizer(weights, params, resolved)

    def closure() -> float:
        weight.grad = weight.detach() + 1
        return float((weight.detach() + 1).square().sum()) / 2

    name, message = params.optimizer.name, None
    try:
        for _ in range(2):
            optimizer.step(closure)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, IndexError) as error:
        message = f"{name} can't take a step with these arguments: {error}"
    else:
        if not weight.any():
            message = f"{name} moves no weight with these arguments"
    if message is not None:
        raise UserError(Problem(message, key="train.optimizer"))
