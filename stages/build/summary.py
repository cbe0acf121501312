"""What a model looks like (layers, shapes, parameters, multiply-adds), and whether it trains."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from stages.common.errors import Problem, UserError
from stages.common.model import ModelSpec

PROBE_ROWS = 2
# A layer's name, the layer, and what it was called with.
Running = tuple[str, nn.Module, Any]


def probe_batch(spec: ModelSpec, seed: int) -> dict[str, Tensor]:
    """Random rows of the shapes that the model is given."""
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for kind, shape in spec.inputs.items():
        if kind == "categorical":
            codes = [torch.randint(n, (PROBE_ROWS,), generator=generator) for n in shape]
            batch[kind] = torch.stack(codes, dim=1)
        else:
            batch[kind] = torch.randn(PROBE_ROWS, *shape, generator=generator)
    return batch


def check_gradients(model: nn.Module, spec: ModelSpec, seed: int) -> None:
    """One forward and one backward pass; every parameter must get a gradient.

    Raises UserError that names the layer where shapes don't fit, or the parameters that the
    output does not depend on.
    """
    # The layers that are at work, the innermost last: where a pass breaks, that one broke.
    running: list[Running] = []

    def enter(name: str, module: nn.Module, inputs: Any) -> None:
        running.append((name, module, inputs))

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        running.pop()

    hooks: list[RemovableHandle] = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(partial(enter, name)))
        hooks.append(module.register_forward_hook(leave))
    try:
        scores = model(probe_batch(spec, seed))
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(_misfit(spec, running[-1], error)) from error
    finally:
        for hook in hooks:
            hook.remove()
    expected = (PROBE_ROWS, spec.num_outputs)
    if tuple(scores.shape) != expected:
        message = f"the model returns {tuple(scores.shape)}; {expected} is needed (rows, outputs)"
        raise UserError(Problem(message, key="build.model.name", value=spec.name))
    # A linear output layer that starts at zero passes no gradient to what is below it: so the
    # pass runs at random weights. They are not those that are saved.
    _backward_at_random_weights(model, spec, seed)
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    model.zero_grad(set_to_none=True)
    if without:
        message = f"these parameters never get a gradient: {', '.join(without)}"
        raise UserError(Problem(message, key="build.model.name", value=spec.name))


def _backward_at_random_weights(model: nn.Module, spec: ModelSpec, seed: int) -> None:
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for weight in model.parameters():
            weight.normal_(std=0.1)
    model.eval()
    scores = model(probe_batch(spec, seed))
    if scores.requires_grad:
        scores.square().sum().backward()
    model.load_state_dict(kept)


def _misfit(spec: ModelSpec, broken: Running, error: Exception) -> Problem:
    name, module, inputs = broken
    shapes = ", ".join(str(tuple(t.shape)) for t in inputs if isinstance(t, Tensor)) or "the batch"
    reason = str(error).split("\n")[0]
    message = (
        f"shapes don't fit in layer '{name or spec.name}' ({type(module).__name__}), "
        f"which was given {shapes}: {reason}"
    )
    return Problem(message, key="build.model", value=spec.name)


def summarise(model: nn.Module, spec: ModelSpec, seed: int) -> str:
    """A table: each layer with its output's shape, parameters and multiply-accumulates a row."""
    shapes: dict[str, str] = {}

    def note_shape(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        # Some layers return a state beside their output.
        first = output[0] if isinstance(output, tuple | list) else output
        if isinstance(first, Tensor):
            shapes[name] = "×".join(str(size) for size in first.shape[1:])

    layers = {
        name: module
        for name, module in model.named_modules()
        if not list(module.children()) or list(module.parameters(recurse=False))
    }
    hooks = [
        module.register_forward_hook(partial(note_shape, name)) for name, module in layers.items()
    ]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(probe_batch(spec, seed))
    for hook in hooks:
        hook.remove()
    rows = [("layer", "type", "output", "parameters", "multiply-adds")]
    for name, module in layers.items():
        num_parameters = sum(weight.numel() for weight in module.parameters(recurse=False))
        figures = f"{num_parameters:,}", f"{_own_macs(counter, model, name):,}"
        rows.append((name or spec.name, type(module).__name__, shapes.get(name, ""), *figures))
    total = sum(weight.numel() for weight in model.parameters())
    rows.append(("total", "", "", f"{total:,}", f"{_macs(counter.get_total_flops()):,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines.insert(-1, "-" * len(lines[1]))
    inputs = ", ".join(f"{kind} {'×'.join(map(str, shape))}" for kind, shape in spec.inputs.items())
    return f"{spec.name}: {inputs} -> {spec.num_outputs}\n\n" + "\n".join(lines) + "\n"


def _own_macs(counter: FlopCounterMode, model: nn.Module, name: str) -> int:
    """Multiply-accumulates a row of a layer, without those of the layers inside it."""
    root = type(model).__name__
    flops = counter.get_flop_counts()

    def of(path: str) -> int:
        return sum(flops.get(f"{root}.{path}" if path else root, {}).values())

    inside = [child for child, _ in model.get_submodule(name).named_children()]
    return _macs(of(name) - sum(of(f"{name}.{child}" if name else child) for child in inside))


def _macs(flops: int) -> int:
    # The counter counts a multiply and an add as two, for all the rows of the probe.
    return flops // 2 // PROBE_ROWS
