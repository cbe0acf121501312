"""The message when a loss is not finite any more: the place, the rows, and what to try."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from torch import Tensor, nn

from stages.common.errors import Problem, UserError
from stages.training.data.batching import LocalBatch
from stages.training.data.source import Source
from stages.training.device.fsdp import local
from stages.training.device.precision import NUM_HALVINGS
from stages.training.optim.class_weights import WeightedLoss
from stages.training.optim.optimizer import needs_closure
from stages.training.state import EpochTotals, State
from stages.training.step.buffer_snapshot import snapshot_buffers
from stages.training.step.step import StepContext, compute_gradients, find_grad_norm

NUM_KEYS = 10
MAX_SKIPS = 5
# To look is to wait for the device.
STEPS_BETWEEN_LOOKS = 64
TRY = "try a tenth of the learning rate, or clip the gradients (train.clip_norm)"
# It goes by how the loss falls along its gradient, which a clipped one would not say.
TRY_LBFGS = "try a tenth of the learning rate, or line_search_fn: strong_wolfe"
# What a place is of: of two, the first leads to the second.
INPUT, WEIGHT, OUTPUT, GRADIENT, NORM = range(5)

# Where a number is not finite: what it is of, its number there, and both in words.
Found = tuple[int, int, str]


class DivergedError(UserError):
    """The loss is not finite any more."""


def stop_when_diverged(epoch: int, train_loss: float, validation_loss: float) -> None:
    """Raise DivergedError unless both losses are finite."""
    if math.isfinite(train_loss) and math.isfinite(validation_loss):
        return
    message = f"the loss is not finite any more in epoch {epoch}; {TRY}"
    raise DivergedError(Problem(message, key="train.optimizer.lr"))


def has_diverged(sums: EpochTotals, steps_per_epoch: int, *, scaled: bool) -> bool:
    """Check whether so many steps in a row were skipped that the training ends.

    That is an epoch, or `MAX_SKIPS`.

    In float16 the first of them only find the factor on the loss.
    """
    most = MAX_SKIPS + NUM_HALVINGS if scaled else min(MAX_SKIPS, steps_per_epoch)
    if isinstance(sums.consecutive_skips, int):
        return sums.consecutive_skips >= most
    due = sums.num_steps % STEPS_BETWEEN_LOOKS == 0 or sums.num_steps == steps_per_epoch
    return due and int(sums.consecutive_skips) >= most


def divergence_error(
    context: StepContext, source: Source, batch: LocalBatch, epoch: int, state: State
) -> DivergedError:
    """The error that too many steps in a row were not applied; `batch` is of the last of them.

    All processes come here after the same step, and get the same.
    """
    num_steps = int(state.totals.consecutive_skips)
    times = f"in {num_steps} steps in a row" if num_steps > 1 else "in the one step of an epoch"
    where = f"step {state.totals.num_steps} of epoch {epoch}"
    lines = [
        f"the loss or its gradient was not finite {times}; no such step was applied",
        f"the last: {where}, on {_name_rows(source, batch.rows)}",
        find_first(context, source, batch, state),
        f"look at these rows; {TRY_LBFGS if needs_closure(type(context.optimizer)) else TRY}",
    ]
    return DivergedError(Problem("\n".join(lines), key="train.optimizer.lr"))


def find_first(context: StepContext, source: Source, batch: LocalBatch, state: State) -> str:
    """The first place in a skipped step with a value that is not finite, in words.

    It is computed once more as it was: rows, masks, precision and micro-batches are the same. The
    model is left as it is, except its gradients.
    """
    model, calls = state.model, count()
    places = [*_find_in_rows(source, batch), *_find_in_weights(model)]

    def look(what: str, output: object) -> None:
        number = next(calls)
        if not all(tensor.isfinite().all() for tensor in _tensors_of(output)):
            places.append((OUTPUT, number, what))

    hooks = [
        module.register_forward_hook(
            lambda m, _, output, name=name: look(
                f"the output of {name or 'the model'} ({_kind(m)})", output
            )
        )
        for name, module in model.named_modules()
    ]
    loss_fn = context.loss_fn
    plain = loss_fn.loss_fn if isinstance(loss_fn, WeightedLoss) else loss_fn
    hooks.append(
        loss_fn.register_forward_hook(
            lambda *inputs: look(f"the loss ({_kind(plain)})", inputs[-1])
        )
    )
    before = snapshot_buffers(context.buffers)
    # The step was counted, and what lets the processes wait for each other has no part in it.
    again = replace(state, totals=replace(state.totals, num_steps=state.totals.num_steps - 1))
    try:
        compute_gradients(replace(context, wrapped_model=model), batch, again, before)
    finally:
        before.put_back()
        for hook in hooks:
            hook.remove()
    places += _find_in_gradients(model, context)
    # A row is in one process alone, and each has found what came of its own.
    places = sorted(
        (p for found in context.world.gather(places) for p in found), key=lambda p: p[:2]
    )
    if not places:
        return f"first seen {_guess(context)}"
    kind, _, first = places[0]
    then = [what for other, _, what in places if other >= OUTPUT]
    return f"first seen in {first}" + (f", then in {then[0]}" if kind == INPUT and then else "")


def _guess(context: StepContext) -> str:
    """A guess at the place, if the step, computed once more, is finite where it begins."""
    if needs_closure(type(context.optimizer)):
        return "where the step would have ended: where it begins, all is finite"
    summed = "in the sum over the processes, or " if context.world.size > 1 else ""
    return f"{summed}in what the model drew: computed once more, all is finite"


def _find_in_rows(source: Source, batch: LocalBatch) -> Iterator[Found]:
    rows = batch.rows[batch.local_rows]
    inputs = {f"the input {kind}": values for kind, values in batch.batch.items()}
    for what, values in {**inputs, "the target": batch.target}.items():
        bad = ~values.isfinite().reshape(len(values), -1).all(dim=1).cpu()
        if bad.any():
            yield INPUT, 0, f"{what} of {_name_rows(source, rows[bad])}"


def _find_in_weights(model: nn.Module) -> Iterator[Found]:
    for number, (name, weight) in enumerate(model.named_parameters()):
        if not local(weight).isfinite().all():
            yield WEIGHT, number, f"the weight {name}"


def _find_in_gradients(model: nn.Module, context: StepContext) -> Iterator[Found]:
    """Yield the gradients that are not finite, from the last layer to the first."""
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    for number, (name, weight) in enumerate(
        zip(names[::-1], context.trainable_params[::-1], strict=True)
    ):
        if weight.grad is not None and not weight.grad.isfinite().all():
            yield GRADIENT, number, f"the gradient of {name}"
    if not find_grad_norm(context).isfinite():
        yield NORM, 0, "the norm of the gradient, though each number of it is finite"


def _name_rows(source: Source, rows: Tensor) -> str:
    """Rows by their keys, the first of them if they are many."""
    keys = source.keys
    names = [str(row if keys is None else keys[row]) for row in rows[:NUM_KEYS].tolist()]
    if len(rows) == 1:
        return f"the row with the key {names[0]}"
    more = f" and {len(rows) - NUM_KEYS} more" if len(rows) > NUM_KEYS else ""
    return f"the rows with the keys {', '.join(names)}{more}"


def _tensors_of(output: object) -> Iterator[Tensor]:
    """The tensors that a layer gives, such as one, or a tuple of an output and what it keeps."""
    if isinstance(output, Tensor):
        yield local(output)
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors_of(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors_of(value)


def _kind(module: nn.Module) -> str:
    """The name of its class; torch makes one of its own of a module whose weights are sharded."""
    return type(module).__name__.removeprefix("FSDP")
