"""Parts of a model outside of its weights and buffers: no file has them, no optimizer moves them.

A training makes its model by a seed of its own, and all that predict make it anew and load the
weights. So a model has to be what its weights and buffers make it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stages.build.probe import at_random_weights, probe_batch
from stages.build.summary import MAX_SHIFT
from stages.common.errors import Problem, UserError
from stages.common.user_code import problem_of
from stages.model.model import ModelSpec


def check_unsaved(model: nn.Module, other: nn.Module, spec: ModelSpec, seed: int) -> None:
    """Stop unless the model is all in its weights and buffers. Raises UserError that names what.

    `other` is the same model, drawn by another seed; its weights are lost.
    """
    _check_containers(model, spec)
    with at_random_weights(model, seed), torch.no_grad():
        other.load_state_dict(model.state_dict())
        scores, again = (each.eval()(probe_batch(spec, seed)) for each in (model, other))
    if not (scores - again).abs().max() > MAX_SHIFT * scores.abs().max():
        return
    names = list(_differing(model, other))
    shown = ", ".join(f"'{name}'" for name in names) or "what __init__ draws at random"
    first = names[0].split(".")[-1] if names else "name"
    message = (
        f"made anew with the same weights, the model gives other scores: {shown} is in no file, "
        "and each training and each prediction would draw it anew; keep it as a buffer, "
        f"self.register_buffer('{first}', …), or as an nn.Parameter if it is to be learned"
    )
    raise _at_init(message, model, spec)


def _check_containers(model: nn.Module, spec: ModelSpec) -> None:
    """Stop at layers and parameters in a list, a tuple or a dict, which torch does not see."""
    seen = {id(part) for part in (*model.modules(), *model.parameters())}
    for name, value in _attributes(model):
        for part in _inside(value):
            if isinstance(part, nn.Module | nn.Parameter) and id(part) not in seen:
                holds, kind = type(part).__name__, type(value).__name__
                is_layer, is_dict = isinstance(part, nn.Module), isinstance(value, Mapping)
                wanted = (
                    f"nn.{'Module' if is_layer else 'Parameter'}{'Dict' if is_dict else 'List'}"
                )
                message = (
                    f"'{name}' of the model holds a {holds} in a {kind}, where torch does not see "
                    f"it: it would be neither trained nor saved; make it an {wanted}"
                )
                raise _at_init(message, model, spec)


def _attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of all layers beside weights, saved buffers and layers, by their full names."""
    of_torch, saved = vars(nn.Module()).keys(), model.state_dict().keys()
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute not in of_torch:
                yield f"{name}.{attribute}" if name else attribute, value
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name not in saved)


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield part
            yield from _inside(part)


def _differing(model: nn.Module, other: nn.Module) -> Iterator[str]:
    """The names of the tensors and numbers that two models have otherwise."""
    others = dict(_attributes(other))
    for name, value in _attributes(model):
        pairs = zip((value, *_inside(value)), (others[name], *_inside(others[name])), strict=False)
        if any(_are_other(one, two) for one, two in pairs):
            yield name


def _are_other(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return not torch.equal(one, two)
    if hasattr(one, "__array__") and hasattr(two, "__array__"):
        return bool((one != two).any())
    return isinstance(one, int | float) and one != two


def _at_init(message: str, model: nn.Module, spec: ModelSpec) -> UserError:
    """The error at the model's `__init__`."""
    problem = Problem(message, key="build.model.name", value=spec.name)
    return problem_of(message, type(model).__init__, problem)
