"""The names that `params.yaml` may use for losses, optimizers and schedules.

PyTorch's own, and those of `stages/zoo/losses.py` and `stages/zoo/schedules.py`. What can't be
said in YAML, or doesn't fit the loop, is refused with the reason and what to use in its place.
"""

import inspect
from functools import cache
from types import ModuleType
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch.optim.lr_scheduler import LRScheduler

from stages.common.config import ClassSpec, validate
from stages.common.errors import Problem, UserError, wrong_name
from stages.common.user_code import own_errors, problem_of
from stages.training.optim.bounds import BOUNDS
from stages.training.optim.call_signature import arguments_model

Kind = Literal["loss", "optimizer", "schedule"]
# A class and the arguments that it is called with.
Resolved = tuple[type, dict[str, Any]]

REGRESSION_LOSSES = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
CLASSIFICATION_LOSSES = ("CrossEntropyLoss", "MultiMarginLoss")
TASKS = ("regression", "classification")

# The loop averages a loss over the rows of the whole batch, whatever the number of processes,
# so how to reduce is not the user's to choose; class weights are `train.class_weights`.
_HIDDEN = {
    "loss": {"reduction", "reduce", "size_average", "weight", "ignore_index"},
    "optimizer": {"params", "foreach", "fused", "capturable", "differentiable", "maximize"},
    "schedule": {"optimizer", "last_epoch", "epochs", "steps_per_epoch", "mode"},
}

# Where torch takes any text and then knows one.
_KNOWN = {"LBFGS": {"line_search_fn": Literal["strong_wolfe"] | None}}

# Lengths that only the run knows, and the peak that optimizer.lr already says.
FILLED = {"T_max", "total_steps", "max_lr"}

_REFUSED = {
    **dict.fromkeys(
        ("BCELoss", "BCEWithLogitsLoss"),
        "two classes are two outputs here; CrossEntropyLoss is the same loss for them",
    ),
    "NLLLoss": "it wants log-probabilities and models here give scores; use CrossEntropyLoss",
    **dict.fromkeys(
        ("LinearCrossEntropyLoss", "AdaptiveLogSoftmaxWithLoss"),
        "it has the weights of the last layer in it, which the model has; use CrossEntropyLoss",
    ),
    **dict.fromkeys(
        ("SoftMarginLoss", "HingeEmbeddingLoss"),
        "it wants targets of 1 and -1, and classes here are codes; use MultiMarginLoss",
    ),
    **dict.fromkeys(
        ("MultiLabelMarginLoss", "MultiLabelSoftMarginLoss"),
        "it is for rows of several classes at once, and a row here has one; use MultiMarginLoss",
    ),
    "KLDivLoss": "it wants probabilities for a target, which is a class here; use CrossEntropyLoss",
    "CTCLoss": "it compares sequences, and a target here is one class; use CrossEntropyLoss",
    "PoissonNLLLoss": (
        "it wants counts for a target, which is standardised here, and so below 0 for many rows; "
        "use MSELoss or HuberLoss"
    ),
    "GaussianNLLLoss": (
        "it wants a variance beside each value, and models here give one number; use MSELoss, or "
        "quantile for the spread"
    ),
    **dict.fromkeys(
        ("MarginRankingLoss", "CosineEmbeddingLoss"),
        "it compares two outputs with each other, not one with a target; use MSELoss",
    ),
    **dict.fromkeys(
        ("TripletMarginLoss", "TripletMarginWithDistanceLoss"),
        "it compares three outputs with each other, not one with a target; use MSELoss",
    ),
    "SparseAdam": "it needs sparse gradients, which no model here has; use Adam",
    "Muon": "it takes matrices only, and every model has biases; use AdamW",
    "LambdaLR": "it takes a Python function; use LinearLR, StepLR or OneCycleLR",
    "MultiplicativeLR": "it takes a Python function; use ExponentialLR",
    "SequentialLR": "it takes other schedules; use OneCycleLR for a warm-up with a decay",
    "ChainedScheduler": "it takes other schedules; use OneCycleLR for a warm-up with a decay",
}


def losses_of(task: str) -> tuple[str, ...]:
    """The losses that fit a task. Raises UserError when one of the zoo does not say its task."""
    from_torch = REGRESSION_LOSSES if task == "regression" else CLASSIFICATION_LOSSES
    from_zoo = []
    for name, loss_class in _own_losses().items():
        said = getattr(loss_class, "task", None)
        if said not in TASKS:
            message = f"{name} does not say its task: `task = 'regression'` or 'classification'"
            message = f"stages/zoo/losses.py: {message}"
            raise problem_of(message, loss_class, Problem(message))
        from_zoo += [name] if said == task else []
    return (*from_torch, *from_zoo)


def allowed(kind: Kind) -> dict[str, type]:
    """The classes that `kind` may name, torch's and the zoo's, by name, sorted.

    Raises UserError when one of the zoo has the name of one of torch's.
    """
    if kind == "optimizer":
        return _subclasses(torch.optim, torch.optim.Optimizer)
    if kind == "loss":
        names = REGRESSION_LOSSES + CLASSIFICATION_LOSSES
        from_torch = {name: getattr(torch.nn, name) for name in names}
        from_zoo = _own_losses()
        torch_names = vars(torch.nn).keys()
    else:
        from_torch = _subclasses(torch.optim.lr_scheduler, LRScheduler)
        from_zoo, torch_names = _own_schedules(), from_torch.keys()
    if shadowed := sorted(from_zoo.keys() & torch_names):
        message = f"stages/zoo: torch has a {kind} {shadowed[0]} too; give the zoo's another name"
        raise problem_of(message, from_zoo[shadowed[0]], Problem(message))
    return dict(sorted((from_zoo | from_torch).items()))


def _own_losses() -> dict[str, type]:
    # Not at the top: a mistake in it would end a stage before it can bring its outputs back.
    with own_errors("the losses of one's own can't be loaded"):
        import stages.zoo.losses
    return _own(stages.zoo.losses, torch.nn.Module)


def _own_schedules() -> dict[str, type]:
    with own_errors("the schedules of one's own can't be loaded"):
        import stages.zoo.schedules
    return _own(stages.zoo.schedules, LRScheduler)


def _own(module: ModuleType, base: type) -> dict[str, type]:
    """The classes of a file of the zoo; what it has only imported is none of them."""
    found = _subclasses(module, base)
    return {n: c for n, c in found.items() if c.__module__ == module.__name__}


def _subclasses(module: ModuleType, base: type) -> dict[str, type]:
    found = {
        name: member
        for name, member in vars(module).items()
        if inspect.isclass(member) and issubclass(member, base) and member is not base
    }
    return {
        name: member
        for name, member in sorted(found.items())
        if name not in _REFUSED and not name.startswith("_")
    }


def refused(kind: Kind) -> dict[str, str]:
    """The names that torch has for `kind` but that can't be used here, with the reason."""
    module = {"loss": torch.nn, "optimizer": torch.optim, "schedule": torch.optim.lr_scheduler}
    return {name: why for name, why in _REFUSED.items() if name in vars(module[kind])}


def arguments_of(kind: Kind, name: str) -> type[BaseModel]:
    """The arguments that may stand beside `name`, as a model."""
    return _arguments_of(kind, name, allowed(kind)[name])


@cache
def _arguments_of(kind: Kind, name: str, named: type) -> type[BaseModel]:
    # A search asks for the same again with each trial, and to make a model takes milliseconds.
    # Those of the zoo say theirs themselves.
    bounds = {} if named.__module__.startswith("stages.") else BOUNDS[kind]
    return arguments_model(named, _HIDDEN[kind], FILLED, _KNOWN.get(name, {}), bounds)


def resolve(kind: Kind, named: ClassSpec) -> Resolved:
    """The class that `train.<kind>.name` means and its checked arguments.

    Raises UserError for an unknown or refused name and for arguments that the class doesn't take.
    """
    key = f"train.{kind}.name"
    classes = allowed(kind)
    if named.name in refused(kind):
        message = f"{named.name} can't be used as train.{kind}: {_REFUSED[named.name]}"
        raise UserError(Problem(message, key, named.name, tuple(classes)))
    if named.name not in classes:
        where = {"loss": "nn", "optimizer": "optim", "schedule": "optim.lr_scheduler"}[kind]
        known = [*classes, *_REFUSED]
        problem = wrong_name(
            f"torch.{where} has no {kind} '{named.name}' that fits", named.name, known, key
        )
        raise UserError(
            Problem(problem.message, key, named.name, tuple(classes), problem.suggestion)
        )
    checked = validate(arguments_of(kind, named.name), named.arguments, at=f"train.{kind}")
    return classes[named.name], checked.model_dump(exclude_unset=True)
