"""Groups of weights by name: with a learning rate of their own, or frozen (`train.groups`).

    groups:
      - {match: "output.*", lr: 0.001, frozen: false}
      - {match: "*", lr: null, frozen: true}

A weight belongs to the first group whose pattern its name matches, as names of files do (`*`,
`?`, `[abc]`; upper and lower case differ); one that none matches trains with the optimizer's
rate. A frozen weight has no gradient, no decay and no part in what the processes share. A norm
whose weights are all frozen stays in evaluation mode: else its running mean and variance would go
on moving, and it would not be frozen at all.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from stages.common.errors import Problem, UserError
from stages.training.params import Group, TrainParams

AT = "train.groups"


def divide(model: nn.Module, groups: Sequence[Group]) -> dict[str, Group]:
    """The group of each weight that belongs to one, by the weight's name.

    Raises UserError for groups that get no weight, and if they leave none to train.
    """
    names = [name for name, _ in model.named_parameters()]
    found: dict[str, Group] = {}
    problems = []
    for number, group in enumerate(groups):
        matched = [name for name in names if fnmatchcase(name, group.match)]
        own = [name for name in matched if name not in found]
        found.update(dict.fromkeys(own, group))
        if not own:
            message = f"no weight of the model is named like '{group.match}'"
            if matched:
                message = f"the groups before it have all weights that '{group.match}' matches"
            key = f"{AT}.{number}.match"
            problems.append(Problem(message, key, group.match, tuple(names)))
    if groups and len(found) == len(names) and all(group.frozen for group in found.values()):
        message = "all weights are frozen, so there is nothing to train"
        problems.append(Problem(message, AT, allowed=tuple(names)))
    if problems:
        raise UserError(*problems)
    return found


def check_groups(params: TrainParams, model: nn.Module) -> None:
    """Stop at groups that do not fit the model or the optimizer. Raises UserError with all."""
    problems = []
    try:
        divide(model, params.groups or ())
    except UserError as error:
        problems += error.problems
    if params.optimizer.name == "LBFGS":
        message = "LBFGS moves all weights by one rate; a group may be frozen, or use AdamW or SGD"
        problems += [
            Problem(message, f"{AT}.{number}.lr", f"{group.lr:g}", ("null",))
            for number, group in enumerate(params.groups or ())
            if group.lr is not None
        ]
    if problems:
        raise UserError(*problems)


def freeze(model: nn.Module, groups: Sequence[Group]) -> list[nn.Module]:
    """Freeze the weights that `groups` say; return the norms that are then wholly frozen."""
    found, frozen = divide(model, groups), set()
    for name, weight in model.named_parameters():
        if name in found and found[name].frozen:
            weight.requires_grad_(False)
            frozen.add(weight)
    still: list[nn.Module] = []
    for module in model.modules():
        own = set(module.parameters())
        if isinstance(module, _NormBase) and own and own <= frozen:
            still.append(module)
    return still


def rates(model: nn.Module, groups: Sequence[Group]) -> dict[float | None, list[nn.Parameter]]:
    """The weights to train by their learning rate; None: the optimizer's, which comes first."""
    found = divide(model, groups)
    by_rate: dict[float | None, list[nn.Parameter]] = {None: []}
    for name, weight in model.named_parameters():
        group = found.get(name)
        if weight.requires_grad and not (group is not None and group.frozen):
            by_rate.setdefault(None if group is None else group.lr, []).append(weight)
    return by_rate


def describe_groups(model: nn.Module, groups: Sequence[Group]) -> list[str]:
    """A line for a person on each group."""
    found = divide(model, groups)
    lines = []
    for group in groups:
        sizes = [w.numel() for name, w in model.named_parameters() if found.get(name) is group]
        what = (
            "the optimizer's learning rate" if group.lr is None else f"learning rate {group.lr:g}"
        )
        what = "frozen" if group.frozen else what
        lines.append(f"{group.match}: {sum(sizes):,} weights in {len(sizes)} tensors, {what}")
    return lines
