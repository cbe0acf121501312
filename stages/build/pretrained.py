"""Weights from a file in place of those that are drawn: `build.pretrained`."""

from collections.abc import Collection, Mapping
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.build.table import lay_out
from stages.common.errors import Problem, UserError, shorten
from stages.model.model import fits

AT = "build.pretrained"
# What wrappers of torch put before a name: DistributedDataParallel and averages, torch.compile; and
# of a mean of folds the first.
PREFIXES = ("module.", "_orig_mod.", "members.0.")
# Where a checkpoint keeps the weights among other things.
INSIDE = ("state_dict", "model_state_dict", "model")
MAX_NAMES = 6


def read_pretrained(path: str, own_names: Collection[str]) -> dict[str, Tensor]:
    """The tensors of a file by the names that they have in a model without wrappers.

    A prefix stays where the model's `own_names` have it. Nothing in the file is run. Raises
    UserError for a file that holds anything but tensors where they should be.
    """
    try:
        tree: object = load_file(path) if path.endswith(".safetensors") else _load(path)
    except UnpicklingError as error:
        message = (
            f"{path} holds more than tensors, or is no file of torch.save: objects of Python would "
            "be run to be read\nsave the weights alone: torch.save(model.state_dict(), path)"
        )
        raise UserError(Problem(message, AT, path)) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        message = f"{path} can't be read as weights: {shorten(reason)}"
        raise UserError(Problem(message, AT, path)) from error
    for key in INSIDE:
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
            break
    named = tree.items() if isinstance(tree, Mapping) else ()
    tensors = {str(name): value for name, value in named if isinstance(value, Tensor)}
    if not tensors:
        held = (
            f"a dict of {_some([str(key) for key in tree])}"
            if isinstance(tree, Mapping)
            else "no dict"
        )
        message = f"{path} holds {held}, where tensors by the names of weights are needed"
        raise UserError(Problem(message, AT, path))
    return {_bare(name, own_names): tensor.contiguous() for name, tensor in tensors.items()}


def _load(path: str) -> object:
    tree: object = torch.load(path, map_location="cpu", weights_only=True)
    return tree


def _bare(name: str, own_names: Collection[str]) -> str:
    """`name` without what wrappers have put before it."""
    while name not in own_names and name.startswith(PREFIXES):
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
    return name


def compare(model: nn.Module, tensors: Mapping[str, Tensor], path: str) -> str:
    """A table: what becomes of each weight of `model` and of each of `tensors`, of the file `path`.

    Raises UserError when no weight of the model is in the file.
    """
    own = model.state_dict()
    rows = [("weight", "of the model", "of the file", "")]
    counts: dict[str, int] = {}
    for name in [*own, *(name for name in tensors if name not in own)]:
        verdict = _judge(own.get(name), tensors.get(name))
        counts[verdict] = counts.get(verdict, 0) + 1
        rows.append((name, _form(own.get(name)), _form(tensors.get(name)), verdict))
    weights = dict(model.named_parameters())
    if not any(name in tensors and fits(tensors[name], weights[name]) for name in weights):
        message = (
            f"no weight of the model has a namesake of its shape in {path}\n"
            f"  the model has {_some(_described(weights))}\n"
            f"  the file has {_some(_described(tensors))}"
        )
        raise UserError(Problem(message, AT, path))
    total = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"pretrained: {path}: {total}\n\n{lay_out(rows)}"


def _judge(own: Tensor | None, given: Tensor | None) -> str:
    if own is None:
        return "not used"
    if given is None:
        return "missing: drawn anew"
    return "matched" if fits(given, own) else "of another shape: drawn anew"


def _form(tensor: Tensor | None) -> str:
    """The shape, and the type where it is no number with a fraction."""
    if tensor is None:
        return ""
    shape = "×".join(map(str, tensor.shape)) or "one number"
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return shape + kind


def _described(tensors: Mapping[str, Tensor]) -> list[str]:
    return [f"{name} ({_form(tensor)})" for name, tensor in tensors.items()]


def _some(names: Collection[str]) -> str:
    shown = list(names)
    more = f", and {len(shown) - MAX_NAMES} more" if len(shown) > MAX_NAMES else ""
    return (", ".join(shown[:MAX_NAMES]) or "nothing") + more
