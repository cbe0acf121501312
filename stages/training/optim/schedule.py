"""The schedule by its name in `params.yaml`: torch's, or one of the zoo."""

import inspect

import torch
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from stages.common.errors import Problem, UserError
from stages.common.user_code import own_errors
from stages.training.optim.registry import resolve
from stages.training.params import TrainParams


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
    """Check whether a schedule moves with every step, not with every epoch.

    One of the zoo says so by its attribute of that name.
    """
    by_step: bool = getattr(schedule, "moves_by_step", isinstance(schedule, OneCycleLR | CyclicLR))
    return by_step
