"""A model that is compiled for its training: `train.compile`.

`torch.compile` writes code for one shape: that of the rows which nearly every step takes at once.
The odd last batch of an epoch goes through the model as it is, and so does validation; the weights
are the model's own, under their own names.

What is compiled adds up in another order, so the bits are others than without: whether to compile
follows from the device, the sizes and the number of steps, never from a stopwatch. On a CPU it
does not pay: in `benchmarks/RESULTS.md` no case is faster for it.
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch._library.effects import EffectType

from stages.common.errors import Problem, UserError
from stages.model.dropout import Dropout, DropoutRng
from stages.tensors.batch import Batch
from stages.training.device.device import device_kind
from stages.training.params import Choice

KEY = "train.compile"
BACKEND = "inductor"
# What torch raises where a model would have to be compiled anew again and again.
LIMIT_HIT = "FailOnRecompileLimitHit"
# Seconds of training that repay a compilation: it takes about one, and saves about a fifth.
WORTH_SECONDS = 300.0
# A step on a GPU takes no less than its launches do, and six operations for each product of a
# weight and a row (two forward, four backward) at a rate that the slowest such GPU reaches.
LAUNCH_SECONDS, OPERATIONS_PER_SECOND = 1e-3, 1e13

_DROPOUT_RNGS: "WeakValueDictionary[int, DropoutRng]" = WeakValueDictionary()


def choose_compile(
    choice: Choice,
    device: torch.device,
    num_products: int,
    num_steps: int,
    *,
    sharded: bool = False,
) -> tuple[bool, str]:
    """Decide whether to compile; the choice in words beside it.

    `num_products` of a weight and a row are in a step. `auto` compiles on a GPU alone, for
    trainings that are long enough by what their steps take there at least, and not where the
    processes have `sharded` the weights.
    """
    if choice != "auto":
        return choice, f"{'compiled' if choice else 'eager'}: {KEY}"
    if sharded:
        return False, "eager: the weights are sharded"
    if device.type != "cuda":
        return False, f"eager: to compile does not pay on {device.type}"
    step = max(LAUNCH_SECONDS, 6 * num_products / OPERATIONS_PER_SECOND)
    if num_steps * step < WORTH_SECONDS:
        return False, f"eager: {num_steps:,} steps would not repay to compile"
    return True, f"compiled: {num_steps:,} steps repay it"


def check_compiler(choice: Choice) -> None:
    """Stop where `true` is asked for and this machine can't. Raises UserError."""
    if choice is True and (lacking := lacking_compiler(device_kind())):
        message = f"to compile a model takes {lacking}, which this machine has not"
        raise UserError(Problem(message, KEY, "true", ("false",)))


def lacking_compiler(device: str) -> str | None:
    """The program that torch needs to compile for a device and does not find; None: it has all."""
    if device == "cuda" and importlib.util.find_spec("triton") is None:
        return "the library triton"
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(compiler) else f"a C++ compiler (CXX, else {compiler})"


def compile_model(
    model: nn.Module, dropout_rng: DropoutRng, usual: Callable[[], int], *, deterministic: bool
) -> nn.Module:
    """`model`, compiled for batches of `usual()` rows; see `Compiled`.

    Its dropout draws from `dropout_rng`. Raises UserError where this machine can't compile.
    """
    check_compiler(choice=True)
    # Imported by torch.compile as well; some seconds that no other training pays.
    from torch._dynamo import config
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    # Else torch continues as if nothing had been compiled.
    config.fail_on_recompile_limit_hit = True
    draw = _draw_of(dropout_rng)
    for module in model.modules():
        if isinstance(module, Dropout) and module.apply_rng is not None:
            module.apply_rng = draw
    # With a stopwatch it would choose between ways that differ in the last bits.
    options: dict[str, Any] | None = None
    if BACKEND == "inductor":
        options = {"deterministic": deterministic}
    # It counts how often it has compiled by the code, not by the model: tune trains many of one.
    torch.compiler.reset()
    compiled = torch.compile(model, dynamic=False, backend=BACKEND, options=options)
    return Compiled(model, compiled, usual, (TorchDynamoException, FailOnRecompileLimitHit))


class Compiled(nn.Module):
    """A model and its compiled form, which takes the batches of `usual()` rows.

    Both have the same weights. What the compilation raises is told as a mistake in `train.compile`.
    """

    def __init__(
        self,
        model: nn.Module,
        compiled: Callable[[Batch], Tensor],
        usual: Callable[[], int],
        refusals: tuple[type[Exception], ...],
    ) -> None:
        super().__init__()
        self.model = model
        # No module of this one: else it would have each weight under two names.
        self._compiled = (compiled,)
        self._usual = usual
        self._refusals = refusals

    def forward(self, batch: Batch) -> Any:
        """The model's output for a batch. Raises UserError where it can't be compiled."""
        if len(next(iter(batch.values()))) != self._usual():
            return self.model(batch)
        try:
            return self._compiled[0](batch)
        except self._refusals as error:
            reason = str(error).strip().split("\n")[0]
            if type(error).__name__ == LIMIT_HIT:
                reason = "a value in it that is no tensor changes from step to step"
            message = f"the model can't be compiled: {reason}"
            raise UserError(Problem(message, KEY, "true", ("false",))) from error


def _draw_of(dropout_rng: DropoutRng) -> Callable[[Tensor, float], Tensor]:
    """`dropout_rng.apply` as one operator, which still draws in Python, in the order of layers."""
    number = id(dropout_rng)
    _DROPOUT_RNGS[number] = dropout_rng

    def apply(values: Tensor, p: float) -> Tensor:
        mask: Tensor = _draw_mask(values.detach(), p, number)
        return values * mask

    return apply


@torch.library.custom_op("reprise::draw_mask", mutates_args=())
def _draw_mask(values: Tensor, p: float, number: int) -> Tensor:
    return _DROPOUT_RNGS[number].draw_mask(values, p).contiguous()


@_draw_mask.register_fake
def _(values: Tensor, p: float, number: int) -> Tensor:  # noqa: ARG001
    return values.new_empty(values.shape)


# Not to be put in another order: one draws after the other.
_draw_mask.register_effect(EffectType.ORDERED)
