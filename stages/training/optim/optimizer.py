"""The optimizer by its name in `params.yaml`, and what is wrong with it."""

import inspect
from typing import Any

import torch
from torch import nn

from stages.common.errors import Problem, UserError
from stages.training.optim.param_groups import rates
from stages.training.optim.registry import Resolved, allowed, resolve
from stages.training.params import TrainParams


def make_optimizer(
    model: nn.Module, params: TrainParams, resolved: Resolved | None = None
) -> torch.optim.Optimizer:
    """The optimizer over two groups: weight decay spares biases and norms (one-dimensional).

    Over two of each learning rate, if `train.groups` has several; the optimizer's own is first.
    One that needs a closure takes one group of all weights, and knows no weight decay.
    The name of `params` is resolved here unless `resolved` is handed in.
    """
    optimizer_class, resolved_arguments = resolved or resolve("optimizer", params.optimizer)
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
    arguments = {**resolved_arguments, "fused": True} if "fused" in taken else resolved_arguments
    try:
        optimizer: torch.optim.Optimizer = optimizer_class(
            [group for group in groups if group["params"]], **arguments
        )
    except (ValueError, TypeError) as error:
        raise UserError(Problem(str(error), key="train.optimizer")) from None
    return optimizer


def needs_closure(optimizer_class: type) -> bool:
    """Check whether its steps need a function that gives the loss."""
    closure = inspect.signature(optimizer_class.step).parameters.get("closure")  # type: ignore[attr-defined]
    return closure is not None and closure.default is inspect.Parameter.empty


def closures() -> list[str]:
    """The names of those optimizers."""
    return [name for name, found in allowed("optimizer").items() if needs_closure(found)]
