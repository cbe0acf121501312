"""From names in `params.yaml` to torch's optimizer and schedule, and what is wrong with them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from stages.common.errors import Problem, UserError
from stages.common.own import own_errors
from stages.common.schema import Class
from stages.train.compiled import check_compiler
from stages.train.datasets import check_dataset
from stages.train.groups import check_groups, rates
from stages.train.losses import make_loss
from stages.train.names import allowed, resolve
from stages.train.params import NUM_CLASSES, TrainParams
from stages.train.together import (
    check_averages,
    check_class_weights,
    check_closure,
    check_parallel,
)


def make_optimizer(model: nn.Module, params: TrainParams) -> torch.optim.Optimizer:
    """The optimizer over two groups: weight decay spares biases and norms (one-dimensional).

    Over two of each learning rate, if `train.groups` has several; the optimizer's own is first.
    One that needs a closure takes one group of all weights, and knows no weight decay.
    """
    optimizer_class, arguments = resolve("optimizer", params.optimizer)
    taken = inspect.signature(optimizer_class).parameters
    spared = {"weight_decay": 0.0} if "weight_decay" in taken else {}
    groups: list[dict[str, Any]] = []
    for rate, weights in rates(model, params.groups or ()).items():
        own = {} if rate is None else {"lr": rate}
        if needs_closure(optimizer_class):
            groups.append({"params": weights, **own})
            continue
        groups.append({"params": [weight for weight in weights if weight.ndim > 1], **own})
        groups.append({"params": [weight for weight in weights if weight.ndim <= 1], **own})
        groups[-1] |= spared
    if "fused" in taken:
        arguments["fused"] = True
    try:
        optimizer: torch.optim.Optimizer = optimizer_class(
            [group for group in groups if group["params"]], **arguments
        )
    except (ValueError, TypeError) as error:
        raise UserError(Problem(str(error), key="train.optimizer")) from None
    return optimizer


def needs_closure(optimizer_class: type) -> bool:
    """Whether its steps can't do without a function that gives the loss."""
    closure = inspect.signature(optimizer_class.step).parameters.get("closure")  # type: ignore[attr-defined]
    return closure is not None and closure.default is inspect.Parameter.empty


def closures() -> list[str]:
    """The names of those optimizers."""
    return [name for name, found in allowed("optimizer").items() if needs_closure(found)]


def make_schedule(
    optimizer: torch.optim.Optimizer,
    params: TrainParams,
    steps_per_epoch: int | None,
    direction: str,
) -> LRScheduler:
    """The schedule, with the lengths that only the run knows filled in (None: not known yet).

    `direction` is 'min' or 'max': what better means for the metric that a plateau watches. Rates
    that an argument gives (`max_lr`, `base_lr`) are those of weights with the optimizer's own; a
    group's with another are in the same ratio. Floors (`eta_min`, `min_lr`) are of all.
    """
    schedule_class, arguments = resolve("schedule", params.schedule)
    taken = inspect.signature(schedule_class).parameters
    if "T_max" in taken:
        arguments.setdefault("T_max", params.epochs)
    if "total_steps" in taken:
        num_steps = params.epochs * (steps_per_epoch or 1)
        arguments["total_steps"] = arguments.get("total_steps") or num_steps
        if arguments["total_steps"] < num_steps:
            least = "" if steps_per_epoch else "at least "
            message = f"the training has {least}{num_steps} steps; leave it out to fit it to them"
            value = str(arguments["total_steps"])
            raise UserError(Problem(message, key="train.schedule.total_steps", value=value))
    if issubclass(schedule_class, OneCycleLR | CyclicLR):
        base = optimizer.defaults["lr"]
        arguments.setdefault("max_lr", base)
        factors = [group["lr"] / base if base else 1.0 for group in optimizer.param_groups]
        for name in {"max_lr", "base_lr"} & arguments.keys():
            if isinstance(arguments[name], int | float):
                arguments[name] = [arguments[name] * factor for factor in factors]
        if not {"momentum", "betas"} & set(optimizer.defaults):
            arguments.setdefault("cycle_momentum", False)
    if issubclass(schedule_class, ReduceLROnPlateau):
        arguments["mode"] = direction
    try:
        with own_errors(f"the schedule {params.schedule.name} can't be made", schedule_class):
            schedule: LRScheduler = schedule_class(optimizer, **arguments)
    except UserError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(Problem(str(error), key="train.schedule")) from None
    return schedule


def moves_by_step(schedule: LRScheduler) -> bool:
    """Whether a schedule is meant to move with every step, not with every epoch.

    One of the zoo says so by its attribute of that name.
    """
    by_step: bool = getattr(schedule, "moves_by_step", isinstance(schedule, OneCycleLR | CyclicLR))
    return by_step


def metric_of(task: str) -> str:
    """The validation metric that is reported beside the loss."""
    return "accuracy" if task == "classification" else "rmse"


def watched_metric(params: TrainParams) -> str:
    """The validation metric that plateaus, pruning and early stopping look at."""
    return "loss" if params.early_stopping is None else params.early_stopping.metric


def watched_direction(params: TrainParams, task: str) -> str:
    """'min' or 'max': what better means for the watched metric. Raises UserError."""
    name = watched_metric(params)
    allowed = ("loss", metric_of(task))
    if name not in allowed:
        message = f"there is no validation metric '{name}' for {task}"
        raise UserError(Problem(message, "train.early_stopping.metric", name, allowed))
    return "max" if name == "accuracy" else "min"


def check_names(
    params: TrainParams,
    task: str,
    classes: Sequence[Class] | None = None,
    model: Callable[[], nn.Module] | None = None,
) -> None:
    """Stop at every wrong name, argument or value before any data is loaded.

    `classes` are those of the target, and `model` makes one with the weights that groups name;
    None: they are not known. Raises UserError with all names and arguments that are wrong.
    """
    problems: list[Problem] = []
    checks: list[Callable[[], object]] = [
        lambda: make_loss(params, task, num_classes=len(classes or ()) or NUM_CLASSES),
        lambda: resolve("optimizer", params.optimizer),
        lambda: resolve("schedule", params.schedule),
        lambda: watched_direction(params, task),
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
    _rehearse(params)


def _rehearse(params: TrainParams) -> None:
    """Two steps on nothing: an argument of the right type may still have a value that fails."""
    params = params.model_copy(update={"groups": None})
    weights = nn.ParameterList([torch.zeros(2, 2), torch.zeros(2)])
    optimizer = make_optimizer(weights, params)
    closures = [lambda: 0.0] if needs_closure(type(optimizer)) else []
    if closures:
        _rehearse_closure(params)
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


def _rehearse_closure(params: TrainParams) -> None:
    """Two steps down a bowl, which must lead anywhere."""
    (weight,) = weights = nn.ParameterList([torch.zeros(2)])
    optimizer = make_optimizer(weights, params)

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
