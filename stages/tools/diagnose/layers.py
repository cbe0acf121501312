"""The gradient of each layer, and the units of ReLUs that give 0 for every row.

Both with the first weights, and with those that were trained last, where there are some of this
model: one step that was far too long can end a layer for good.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from stages.model.model import read_spec
from stages.tools.diagnose.measured import Measured, quiet, training_of
from stages.tools.diagnose.sample import draw_source
from stages.tools.training_tool import Training
from stages.training.build import assemble
from stages.training.device.distributed import World
from stages.training.recipe import BUILT
from stages.training.step.loss_of_scores import compute_loss, prepare_scores

MAX_ROWS = 512
# Of a layer's units.
DEAD = 0.9
# The first layer's gradient for each weight, of the last one's.
VANISHES, EXPLODES = 1e-5, 1e4
LONG = 1e3
# What is called inside these gives the same units, and is not noted again.
RELUS = (functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
TRAINED = Path("data/train/model.safetensors")
MAX_SHOWN = 6


@dataclass(frozen=True)
class Look:
    """One pass: the root of the mean square of each layer's gradient, first layer first.

    `norm` is that of the whole gradient; `dead` the share of units that give 0 for every row, of
    each ReLU in the order in which they ran.
    """

    gradients: dict[str, float]
    norm: float
    dead: list[float]


class _Units(TorchFunctionMode):
    """Notes of each ReLU which share of its units gives 0 for every row."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: list[float] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in RELUS:
            self.dead.append(share_of_dead(output))
        return output


def share_of_dead(output: Tensor) -> float:
    """The share of units, or of channels of an image, that are 0 in every row (rows, units, …)."""
    active = (output.detach() != 0).flatten(2).any(dim=2) if output.ndim > 2 else output != 0
    return float((~active.any(dim=0)).float().mean()) if active.ndim == 2 else 0.0


def measure() -> Iterator[Measured]:
    """Look at the first weights, and at the trained ones."""
    training = training_of()
    yield from judge(look_at(training), "with the first weights")
    if TRAINED.exists() and read_spec(TRAINED.parent) == read_spec(BUILT):
        training.model.load_state_dict(load_file(TRAINED))
        yield from judge(look_at(training), "with the weights trained last")


def look_at(training: Training) -> Look:
    """One forward and one backward pass over some train rows."""
    # No step is taken: what an average of weights or a schedule would do is not looked at.
    plain = training.params.model_copy(update={"ema": None, "swa": None})
    with quiet():
        made = assemble(training.model, training.data, plain, training.seed, World())
    rows = torch.from_numpy(draw_source(training.data.train, MAX_ROWS))
    batch, target = training.data.train.take(rows)
    weights = training.data.train.weight
    model = training.model.train()
    made.context.dropout_rng.begin_epoch(training.seed, 1)
    try:
        with _Units() as units:
            scores = prepare_scores(model(batch), target)
        loss = compute_loss(
            made.context.loss_fn,
            scores,
            target,
            None if weights is None else weights[rows.to(weights.device)],
        )
    finally:
        made.context.dropout_rng.end_epoch()
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return Look(gradients_of(model), total_norm(model), units.dead)


def gradients_of(model: nn.Module) -> dict[str, float]:
    """The root of the mean square of each weight's gradient; biases and norms are left out."""
    return {
        name: float(weight.grad.double().square().mean().sqrt())
        for name, weight in model.named_parameters()
        if weight.grad is not None and weight.ndim > 1
    }


def total_norm(model: nn.Module) -> float:
    """The norm of the whole gradient."""
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    return float(nn.utils.get_total_norm(grads))


def judge(look: Look, when: str) -> Iterator[Measured]:
    """Yield what is wrong with the layers, or that nothing is."""
    found = False
    worst = max(look.dead, default=0.0)
    if worst > DEAD:
        shares = ", ".join(f"{share:.0%}" for share in look.dead[:MAX_SHOWN])
        what = f"{when}, so many units of the ReLUs give 0 for every row: {shares}"
        found = True
        yield Measured("wrong", f"{what} (first layer first)", "a dead ReLU network")
    sizes = list(look.gradients.values())
    if len(sizes) > 1 and sizes[-1] > 0:
        ratio = sizes[0] / sizes[-1]
        ends = f"{_brief(look.gradients)}; norm {look.norm:.3g}"
        if ratio < VANISHES:
            found = True
            what = f"{when}, the first layer's gradient is {ratio:.1g} of the last one's: {ends}"
            yield Measured("wrong", what, "gradients that vanish")
        elif ratio > EXPLODES or look.norm > LONG:
            found = True
            what = f"{when}, the gradient grows from layer to layer: {ends}"
            yield Measured("wrong", what, "gradients that explode")
    if not found:
        norm = f"the norm of the gradient is {look.norm:.3g}"
        relus = f", at most {worst:.0%} of a ReLU's units are dead" if look.dead else ""
        yield Measured("ok", f"{when}, {norm}{relus}")


def _brief(gradients: dict[str, float]) -> str:
    shown = list(gradients.items())
    shown = shown if len(shown) <= MAX_SHOWN else [*shown[:3], ("…", 0.0), *shown[-2:]]
    return ", ".join(name if name == "…" else f"{name} {value:.1e}" for name, value in shown)
