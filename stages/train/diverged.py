"""What a training says when its loss is no number any more: where, for which rows, what to try."""

import math

from torch import Tensor, nn

from stages.common.errors import Problem, UserError
from stages.train.machine import World
from stages.train.sharded import is_sharded, local
from stages.train.shares import Share
from stages.train.sources import Source
from stages.train.state import Sums
from stages.train.step import Step, fit_to_target

NUM_KEYS = 10
TRY = "try a tenth of the learning rate, or clip the gradients (train.clip_norm)"


class DivergedError(UserError):
    """The loss is no number any more."""


def stop_when_diverged(epoch: int, train_loss: float, validation_loss: float) -> None:
    """Raise DivergedError unless both losses are finite."""
    if math.isfinite(train_loss) and math.isfinite(validation_loss):
        return
    message = f"the loss is not a number any more in epoch {epoch}; {TRY}"
    raise DivergedError(Problem(message, key="train.optimizer.lr"))


def lost(
    model: nn.Module, step: Step, source: Source, share: Share, epoch: int, sums: Sums
) -> DivergedError:
    """The error that too many steps on end were not applied; `share` is of the last of them."""
    keys, rows = source.keys, share.rows
    names = [str(row if keys is None else keys[row]) for row in rows[:NUM_KEYS].tolist()]
    more = f" and {len(rows) - NUM_KEYS} more" if len(rows) > NUM_KEYS else ""
    num_steps = int(sums.lost)
    times = f"in {num_steps} steps on end" if num_steps > 1 else "in the one step of an epoch"
    lines = [
        f"the loss or its gradient was no finite number {times}; no such step was applied",
        f"the last: step {sums.num_steps} of epoch {epoch}, on the rows with the keys "
        f"{', '.join(names)}{more}",
        f"first seen in {find_first(model, step, share)}",
        f"look at these rows; {TRY}",
    ]
    return DivergedError(Problem("\n".join(lines), key="train.optimizer.lr"))


def find_first(model: nn.Module, step: Step, share: Share) -> str:
    """Where in the model a number that is not finite first appears, for a batch, in words."""
    bad: list[str] = []
    # A part of a weight is bad where any process's is.
    world = step.world if is_sharded(model) else World()

    def is_bad(values: Tensor) -> bool:
        return bool(world.largest([int(not values.isfinite().all())])[0])

    bad += [f"the weight {name}" for name, w in model.named_parameters() if is_bad(local(w))]

    def look(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and not output.isfinite().all():
            bad.append(f"the output of {name or 'the model'} ({_kind(module)})")

    hooks = [
        module.register_forward_hook(lambda m, _, output, name=name: look(name, m, output))
        for name, module in model.named_modules()
    ]
    for weight in step.weights:
        weight.grad = None
    model.eval()
    try:
        scores = model(share.batch)
        loss = step.loss_of(fit_to_target(scores, share.target), share.target)
        loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
    if not loss.isfinite():
        bad.append(f"the loss ({type(step.loss_of).__name__})")
    # Gradients come from the last layer to the first.
    moving = [name for name, weight in model.named_parameters() if weight.requires_grad]
    for name, weight in reversed(list(zip(moving, step.weights, strict=True))):
        if weight.grad is not None and is_bad(weight.grad):
            bad.append(f"the gradient of {name}")
    return bad[0] if bad else "the sum over the batch, not in this process"


def _kind(module: nn.Module) -> str:
    """The name of its class; torch makes one of its own of a module whose weights are divided."""
    return type(module).__name__.removeprefix("FSDP")
