"""The layers of the model with their shapes, in the order in which they run, up to one that fails.

The model is that of `params.yaml`: where build has failed there is no other.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stages.build.folder import find_spec
from stages.build.params import BuildParams
from stages.build.probe import probe_batch
from stages.common.params import read_params
from stages.features.schema import read_schema
from stages.model.model import make_model
from stages.tools.diagnose.measured import Measured
from stages.training.recipe import PREPARED

NUM_ROWS = 2
MAX_SHOWN = 12


def measure() -> Iterator[Measured]:
    """Send two rows through the model, and tell how far they come."""
    params = read_params("build")
    spec = find_spec(params.section("build", BuildParams), read_schema(PREPARED))
    model = make_model(spec, params.seed)
    lines, error = trace(model, probe_batch(spec, params.seed, NUM_ROWS))
    shown = "\n  ".join(lines[-MAX_SHOWN:])
    if error is None:
        what = f"{NUM_ROWS} rows go through all layers of {spec.name}:\n  {shown}"
        yield Measured("ok", what)
        return
    kind = "numbers of the wrong type" if "dtype" in error or "scalar type" in error else ""
    cause = kind or "shapes that don't fit"
    yield Measured("wrong", f"{NUM_ROWS} rows came as far as\n  {shown}\n  {error}", cause)


def trace(model: nn.Module, batch: dict[str, Tensor]) -> tuple[list[str], str | None]:
    """A line for each layer that has run, or in which it broke; and the error, if there was one."""
    lines: list[str] = []
    entered: list[tuple[str, nn.Module, object]] = []

    def enter(name: str, module: nn.Module, inputs: object) -> None:
        entered.append((name, module, inputs))

    def leave(name: str, module: nn.Module, inputs: object, output: object) -> None:
        entered.pop()
        lines.append(
            f"{name or 'the model'} ({type(module).__name__}): {_shape(inputs)} -> {_shape(output)}"
        )

    for name, module in model.named_modules():
        if next(module.children(), None) is not None and name:
            continue
        module.register_forward_pre_hook(lambda m, i, name=name: enter(name, m, i))
        module.register_forward_hook(lambda m, i, o, name=name: leave(name, m, i, o))
    try:
        with torch.no_grad():
            model.eval()(batch)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        name, module, inputs = entered[-1]
        where = f"{name or 'the model'} ({type(module).__name__}): {_shape(inputs)} -> fails here"
        weights = ", ".join(
            f"{n} {tuple(w.shape)}" for n, w in module.named_parameters(recurse=False)
        )
        lines.append(where + (f"; it has {weights}" if weights else ""))
        return lines, str(error).split("\n")[0]
    return lines, None


def _shape(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shape(each)}" for name, each in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(_shape(each) for each in value)
    return type(value).__name__
