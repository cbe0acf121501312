"""The summary of a model: layers, shapes, parameters, multiply-adds; a trial of its gradients."""

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from stages.build.probe import PROBE_ROWS, at_random_weights, probe_batch
from stages.build.table import lay_out
from stages.common.errors import Problem, UserError
from stages.common.user_code import problem_of, to_user_error
from stages.model.layers import ByColumn
from stages.model.model import ModelSpec

# As many rows may be asked about at once, too.
OTHER_ROWS = (1, 3)
# Of the largest score: by less a row may differ alone, as float32 rounds.
MAX_SHIFT = 1e-3
# A layer's name, the layer, and what it was called with.
Running = tuple[str, nn.Module, Any]


def check_gradients(model: nn.Module, spec: ModelSpec, seed: int) -> None:
    """One forward and one backward pass; every parameter must get a gradient.

    What the model counts (a batch norm) is afterwards as it was. Raises UserError that names the
    layer where shapes don't fit, what is no table of scores, the parameters that the output does
    not depend on, or that a row's scores depend on other rows; and the line, in a model of one's
    own.
    """
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _run(model.train(), spec, seed, PROBE_ROWS)
    for num_rows in OTHER_ROWS:
        with torch.no_grad():
            _run(model.eval(), spec, seed, num_rows)
    model.load_state_dict(kept)
    _backward_at_random_weights(model, spec, seed)
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    model.zero_grad(set_to_none=True)
    if without:
        message = f"these parameters never get a gradient: {', '.join(without)}"
        raise _wrong(message, model, spec)


def _run(model: nn.Module, spec: ModelSpec, seed: int, num_rows: int) -> Tensor:
    """The scores of some rows. Raises UserError when they can't be had, or are none."""
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
        scores: object = model(probe_batch(spec, seed, num_rows))
    except UserError:
        raise
    except Exception as error:
        raise _misfit(model, spec, running[-1] if running else ("", model, ()), error) from error
    finally:
        for hook in hooks:
            hook.remove()
    expected: tuple[int, ...] = (num_rows, spec.num_outputs)
    needed = f"a tensor {expected} is needed (rows, outputs)"
    if model.training and isinstance(scores, Tensor) and scores.ndim > len(expected):
        # In training a model may give the scores of each of its members.
        expected = (num_rows, scores.shape[1], spec.num_outputs)
    if not isinstance(scores, Tensor):
        raise _wrong(f"the model returns {_kind(scores)}; {needed}", model, spec)
    if tuple(scores.shape) != expected or not scores.is_floating_point():
        kind = str(scores.dtype).removeprefix("torch.")
        kind = "" if scores.is_floating_point() else f" of type {kind}"
        rows = "one row" if num_rows == 1 else f"{num_rows} rows"
        message = f"the model returns {tuple(scores.shape)}{kind} for {rows}; {needed}"
        raise _wrong(message, model, spec)
    return scores


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}" if value is not None else "None: 'return' is missing"


def _wrong(message: str, model: nn.Module, spec: ModelSpec) -> UserError:
    """The error of what a model returns: at its `forward`."""
    otherwise = Problem(message, key="build.model.name", value=spec.name)
    return problem_of(message, _forward_of(model), otherwise)


def _forward_of(model: nn.Module) -> object:
    """The `forward` of a model, or its class where it has none of its own."""
    own = type(model).forward
    return type(model) if own is nn.Module.forward else own


def _backward_at_random_weights(model: nn.Module, spec: ModelSpec, seed: int) -> None:
    model.eval()
    with at_random_weights(model, seed):
        scores = model(probe_batch(spec, seed))
        if scores.requires_grad:
            scores.square().sum().backward()
        # Drawn once more: a model may write into its batch.
        first = {kind: values[:1] for kind, values in probe_batch(spec, seed).items()}
        with torch.no_grad():
            alone = model(first)
    _check_rows_apart(scores.detach(), alone, model, spec)


def _check_rows_apart(scores: Tensor, alone: Tensor, model: nn.Module, spec: ModelSpec) -> None:
    """Raise UserError where the first row has other scores `alone` than beside another."""
    shift = (scores[:1] - alone).abs().max()
    if shift > MAX_SHIFT * scores.abs().max():
        shown, beside = (", ".join(f"{v:.3g}" for v in s[0].tolist()[:3]) for s in (alone, scores))
        message = (
            f"a row alone has other scores ({shown}) than beside another one ({beside}): it would "
            "be predicted otherwise in each batch; does a step go over the rows (dimension 0), "
            "such as softmax(0), or draw at random in evaluation?"
        )
        raise _wrong(message, model, spec)


def _misfit(model: nn.Module, spec: ModelSpec, broken: Running, error: Exception) -> UserError:
    name, module, inputs = broken
    shapes = ", ".join(str(tuple(t.shape)) for t in inputs if isinstance(t, Tensor)) or "the batch"
    where = f"layer '{name or spec.name}' ({type(module).__name__}), which was given {shapes}"
    if mistake := to_user_error(error, f"the model fails in {where}", _forward_of(model)):
        return mistake
    reason = str(error).split("\n")[0]
    message = f"shapes don't fit in {where}: {reason}"
    return UserError(Problem(message, key="build.model", value=spec.name))


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
        if not isinstance(module, ByColumn)
        and (
            all(isinstance(child, ByColumn) for child in module.children())
            or list(module.parameters(recurse=False))
        )
    }
    hooks = [
        module.register_forward_hook(partial(note_shape, name)) for name, module in layers.items()
    ]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        _call_without_compiler(counter.mode)
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
    *lines, last = lay_out(rows, num_right=2).splitlines()
    lines += [lines[1], last]
    inputs = ", ".join(f"{kind} {'×'.join(map(str, shape))}" for kind, shape in spec.inputs.items())
    return f"{spec.name}: {inputs} -> {spec.num_outputs}\n\n" + "\n".join(lines) + "\n"


def _call_without_compiler(mode: object) -> None:
    """Have the counter count without an import of torch's compiler, which takes a second.

    torch wraps what the compiler must not look into; the first call imports it, for the function
    to call from then on, which is kept in this attribute (`torch/_compile.py`).
    """
    count = inspect.unwrap(type(mode).__torch_dispatch__)  # type: ignore[attr-defined]
    count.__dynamo_disable = count


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
