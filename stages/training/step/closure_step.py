"""One step of an optimizer that asks for the loss itself, several times a step, such as LBFGS.

Every evaluation is of the same batch with the same masks, else a line search would compare what
differs by luck. All processes see the whole batch's loss and gradient, so they decide the same.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stages.training.data.batching import LocalBatch
from stages.training.device.rng import put_generators, read_generators
from stages.training.state import State
from stages.training.step.buffer_snapshot import snapshot_buffers
from stages.training.step.step import StepContext, compute_gradients


def closure_step(context: StepContext, batch: LocalBatch, state: State) -> None:
    """Learn from the rows of a batch, as `train_step` does; record the first evaluation of it.

    A step that starts or ends where the loss, its gradient or a weight is not finite is not
    applied: the model and the optimizer are put back. To know, the end is evaluated once more; of
    what the model counts, that look and those that were not finite leave nothing behind.
    """
    assert context.scaler is None, "check_names refuses what would scale some losses unlike others"
    totals, world = state.totals, context.world
    put_back, device = _remember(context, state), context.trainable_params[0].device
    # A model may draw from them: the same each time.
    drawn = read_generators(device)
    seen: list[tuple[float, float]] = []

    def evaluate() -> tuple[float, float]:
        put_generators(drawn, device)
        counted = snapshot_buffers(context.buffers)
        total = world.all_reduce_sum(compute_gradients(context, batch, state, counted).double())
        loss = total.item() / world.size
        gradient = [weight.grad for weight in context.trainable_params if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradient).item()
        if not math.isfinite(loss + norm):
            counted.put_back()
            # As bad as can be, and no slope to go by: torch's line search then takes half the way.
            loss = math.inf
            for part in gradient:
                part.fill_(math.nan)
        return loss, norm

    def closure() -> float:
        seen.append(evaluate())
        if len(seen) == 1 and not math.isfinite(sum(seen[0])):
            raise _NotFiniteError
        return seen[-1][0]

    # Torch's line search divides by the learning rate, which a schedule may take down to 0.
    go = context.optimizer.step if context.optimizer.param_groups[0]["lr"] else _stay
    try:
        go(closure)
        weights_are_finite = all(weight.isfinite().all() for weight in context.trainable_params)
        at_the_end = snapshot_buffers(context.buffers)
        applied = weights_are_finite and math.isfinite(sum(evaluate()))
        at_the_end.put_back()
    except _NotFiniteError:
        applied = False
    totals.num_steps += 1
    if not applied:
        put_back()
        totals.consecutive_skips += 1
        return
    totals.add_step(*seen[0], batch.global_batch_size / world.size)


def _stay(closure: Callable[[], float]) -> None:
    """A step of length 0."""
    closure()


class _NotFiniteError(Exception):
    """The first evaluation is not finite: there is nowhere to go from here."""


def _remember(context: StepContext, state: State) -> Callable[[], None]:
    """A function that puts the model and the optimizer back as they are now."""
    optimizer = context.optimizer
    counted = snapshot_buffers(context.buffers)
    weights = list(state.model.parameters())
    copies = [weight.detach().clone() for weight in weights]
    of_weights = {
        weight: {name: _copied(value) for name, value in known.items()}
        for weight, known in optimizer.state.items()
    }

    @torch.no_grad()
    def put_back() -> None:
        counted.put_back()
        for weight, copy in zip(weights, copies, strict=True):
            weight.copy_(copy)
        optimizer.state.clear()
        optimizer.state.update(of_weights)

    return put_back


def _copied(value: Any) -> Any:
    """A copy that no step changes. LBFGS puts other tensors into its lists, and writes to none."""
    if isinstance(value, Tensor):
        return value.clone()
    return list(value) if isinstance(value, list) else value
