"""One optimizer step: the gradient of a batch's mean loss, then the optimizer.

A batch may be divided twice: over the processes, and within one into micro-batches that fit its
memory. Neither changes the gradient beyond rounding, nor the dropout masks, unless rows of a batch
depend on each other: a batch norm sees one micro-batch of one process.

A step whose loss or gradient is not finite is skipped: weights, buffers (the statistics of a batch
norm) and optimizer stay as they were.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from stages.model.dropout import DropoutRng
from stages.tensors.batch import Batch, take
from stages.training.data.batching import LocalBatch, micro_batches, to_global_slice
from stages.training.device.distributed import World
from stages.training.device.out_of_memory import halve_micro_batch, is_out_of_memory
from stages.training.optim.objective import Logged, Objective, check_logged, unpack
from stages.training.state import EpochTotals, State
from stages.training.step.buffer_snapshot import BufferSnapshot, Place, snapshot_buffers
from stages.training.step.loss_of_scores import compute_loss, prepare_scores


@dataclass(frozen=True)
class StepContext:
    """The parts that all steps of a training share.

    `wrapped_model` is the model, or what compiles it or keeps it equal in all processes of `world`.
    `trainable_params` are, of sharded weights, this process's parts; `buffers` are the places of
    the model's buffers, such as the statistics of a batch norm. `frozen_norms` stay in
    evaluation mode, since their weights are frozen. `clip_norm` inf and `clip_value` None: no
    clipping. `objective` makes of model and loss what a step makes less. `grad_norm_fn` gives the
    norm of the whole gradient. With `equal_forwards` all processes call the model equally often,
    since FSDP gathers the weights in each call.
    """

    wrapped_model: nn.Module
    loss_fn: nn.Module
    objective: Objective
    optimizer: Optimizer
    dropout_rng: DropoutRng
    world: World
    clip_norm: float
    trainable_params: list[nn.Parameter]
    autocast: AbstractContextManager[object] = field(default_factory=nullcontext)
    scaler: GradScaler | None = None
    augment: Callable[[Batch], Batch] | None = None
    clip_value: float | None = None
    frozen_norms: Sequence[nn.Module] = ()
    grad_norm_fn: Callable[[list[Tensor]], Tensor] = nn.utils.get_total_norm
    equal_forwards: bool = False
    buffers: Sequence[Place] = ()


def train_step(context: StepContext, batch: LocalBatch, state: State) -> None:
    """Learn from the rows of a batch; add loss, norm and rows to the totals of the epoch."""
    totals, world = state.totals, context.world
    snapshot = snapshot_buffers(context.buffers)

    # zero_grad, then forward and backward over micro-batches
    loss = compute_gradients(context, batch, state, snapshot).item()

    # unscale
    if context.scaler is not None:
        context.scaler.unscale_(context.optimizer)

    # Skip a step that is not finite. All processes must decide alike, so they go by the gradient
    # norm, which is the same in all; a loss that is not finite on one rank has turned its gradient
    # into nan (`_poison_if_not_finite`). A single process also looks at the loss: it can be inf
    # with a finite gradient.
    grad_norm = find_grad_norm(context)
    norm = grad_norm.item()
    if math.isfinite(norm) and (world.size > 1 or math.isfinite(loss)):
        # clip
        if norm > context.clip_norm:
            nn.utils.clip_grads_with_norm_(context.trainable_params, context.clip_norm, grad_norm)
        if context.clip_value is not None:
            nn.utils.clip_grad_value_(context.trainable_params, context.clip_value)

        # optimizer.step, not scaler.step: the decision is made above. unscale_ has recorded infs,
        # so scaler.update() below still lowers the scale.
        context.optimizer.step()

        # totals: the loss is scaled to this process's share of the batch, so that the sum over all
        # processes is that of the batch
        totals.add_step(loss, norm, batch.global_batch_size / world.size)
    else:
        snapshot.put_back()
        totals.consecutive_skips += 1

    if context.scaler is not None:
        context.scaler.update()
    totals.num_steps += 1


def train_step_on_device(context: StepContext, batch: LocalBatch, state: State) -> None:
    """The same step on a GPU without a host sync: whether to skip is a tensor on the device."""
    snapshot = snapshot_buffers(context.buffers)
    loss = compute_gradients(context, batch, state, snapshot)
    if context.scaler is not None:
        context.scaler.unscale_(context.optimizer)
    num_rows = batch.global_batch_size / context.world.size
    applied = apply_on_device(context, loss, find_grad_norm(context), num_rows, state.totals)
    snapshot.keep_where(applied)
    if context.scaler is not None:
        context.scaler.update()
    state.totals.num_steps += 1


def compute_gradients(
    context: StepContext, batch: LocalBatch, state: State, snapshot: BufferSnapshot
) -> Tensor:
    """Leave the gradient of a batch's mean loss in the weights; return the local part (scalar).

    Where the memory is full, fewer rows at once are tried, from the buffers of `snapshot` on.
    """
    while True:
        zero_grad(context)
        micro_batch_size = state.result.micro_batch_size
        try:
            loss, logged = accumulate_gradients(
                context, batch, state.totals.num_steps, micro_batch_size
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            if logged:
                epochs = state.result.history
                before = state.totals.logged or (epochs[0].logged if epochs else {})
                check_logged(before, logged, context.objective)
                state.totals.note(logged)
            return loss
        # Outside the except block: the traceback would keep the activations alive.
        snapshot.put_back()
        state.result.micro_batch_size = halve_micro_batch(
            micro_batch_size, len(batch.target), context.world
        )


def accumulate_gradients(
    context: StepContext, batch: LocalBatch, step_in_epoch: int, micro_batch_size: int | None
) -> tuple[Tensor, Logged]:
    """Forward and backward of a step, `micro_batch_size` rows at a time (None: all at once).

    Returns this process's part of the mean loss (scalar), and of what the objective logs.
    """
    num_rows, losses = len(batch.target), []
    logged: Logged = {}
    max_local_rows = num_rows
    if context.equal_forwards:
        # With FSDP every process must call the model as often as the one with the most rows,
        # rank 0.
        max_local_rows = math.ceil(batch.global_batch_size / context.world.size)
    for rows_slice in micro_batches(max_local_rows, micro_batch_size):
        rows, target, row_weights = batch.batch, batch.target, batch.row_weights
        scale, local_rows = batch.loss_scale, batch.local_rows
        # None: the whole local batch in one go.
        if rows_slice is not None:
            # Share of the local rows that this slice really has: it may reach past the end.
            scale *= len(range(num_rows)[rows_slice]) / num_rows
            # A process without rows takes one row at scale 0, so that all call the model.
            own_slice = rows_slice if scale else slice(1)
            rows, target = take(rows, own_slice), target[own_slice]
            row_weights = None if row_weights is None else row_weights[own_slice]
            local_rows = to_global_slice(batch, own_slice)
        # Seeds the masks of these rows for this step: the same masks however the batch is cut.
        context.dropout_rng.begin_step(step_in_epoch, batch.global_batch_size, local_rows)
        is_last = rows_slice is None or rows_slice.stop >= max_local_rows
        with _no_sync_before_last(context, is_last=is_last):
            rows = rows if context.augment is None else context.augment(rows)
            loss, to_log = find_loss(context, rows, target, row_weights)
            # Skip a multiplication that changes nothing.
            loss = loss if scale == 1 else loss * scale
            scaled = loss if context.scaler is None else context.scaler.scale(loss)
            grad_output = _poison_if_not_finite(loss) if context.world.size > 1 else None
            scaled.backward(grad_output)  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        for name, value in to_log.items():
            part = value.detach() * scale
            logged[name] = logged[name] + part if name in logged else part
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum(), logged


def find_loss(
    context: StepContext, batch: Batch, target: Tensor, row_weights: Tensor | None
) -> tuple[Tensor, Logged]:
    """The mean loss (scalar) of some rows by the objective, and what it logs."""

    def score(rows: Batch) -> Tensor:
        with context.autocast:
            scores = context.wrapped_model(rows)
        return prepare_scores(scores, target)

    def loss_of(scores: Tensor, target: Tensor, rows: Tensor | None = None) -> Tensor:
        weights = row_weights
        if weights is not None and rows is not None:
            weights = weights[rows]
        return compute_loss(context.loss_fn, scores, target, weights)

    found = context.objective(score, batch, target, loss_of, context.dropout_rng)
    return unpack(found, context.objective)


def apply_on_device(
    context: StepContext, loss: Tensor, norm: Tensor, num_rows: float, totals: EpochTotals
) -> Tensor:
    """Clip, step and add to the totals without waiting for the device; it decides on skipping.

    Returns on the device whether the step is applied (scalar). Python waits for it only where the
    optimizer is not fused, and in the first step of a fused SGD with momentum.
    """
    # One check for both: a sum with a part that is not finite is not finite.
    finite = (norm + loss if context.world.size == 1 else norm).isfinite()
    if context.clip_norm < math.inf:
        nn.utils.clip_grads_with_norm_(context.trainable_params, context.clip_norm, norm)
    if context.clip_value is not None:
        nn.utils.clip_grad_value_(context.trainable_params, context.clip_value)
    if _can_skip_on_device(context.optimizer):
        # Fused optimizers skip the update on the device where found_inf is 1 (GradScaler's
        # protocol).
        context.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        context.optimizer.step()
    elif finite.item():
        context.optimizer.step()
    totals.to(norm.device)
    zero = torch.zeros_like(norm, dtype=torch.float64)
    totals.loss += torch.where(finite, loss.double() * num_rows, zero)
    totals.norm += torch.where(finite, norm.double(), zero)
    totals.rows += finite * num_rows
    totals.steps_applied += finite
    totals.consecutive_skips += 1
    # Back to 0 where the step was applied.
    totals.consecutive_skips *= ~finite
    return finite


def _can_skip_on_device(optimizer: Optimizer) -> bool:
    """Check whether the optimizer's next step can be left to the device, which skips it or not."""
    defaults = optimizer.defaults
    # A first step that is not applied would leave a fused SGD's momentum unset.
    return bool(defaults.get("fused") and (optimizer.state or not defaults.get("momentum")))


def find_grad_norm(context: StepContext) -> Tensor:
    """The norm of the whole gradient (scalar)."""
    return context.grad_norm_fn([w.grad for w in context.trainable_params if w.grad is not None])


def zero_grad(context: StepContext) -> None:
    """Drop the gradients of the weights that are trained."""
    for weight in context.trainable_params:
        weight.grad = None


def _poison_if_not_finite(loss: Tensor) -> Tensor:
    """Return what `backward` starts from (scalar): 1, or nan where the loss is not finite.

    The other processes see the averaged gradient alone, and must skip the step as well.
    """
    return torch.where(loss.isfinite(), 1.0, math.nan).to(loss.dtype)


def _no_sync_before_last(context: StepContext, *, is_last: bool) -> "nullcontext[None]":
    """DDP averages gradients once a step: no_sync() for all micro-batches but the last.

    FSDP does so each time, since a device may not hold a whole gradient.
    """
    if is_last or not isinstance(context.wrapped_model, DistributedDataParallel):
        return nullcontext()
    return context.wrapped_model.no_sync()  # type: ignore[return-value]


def build_ddp_buckets(context: StepContext, batch: Batch, target: Tensor) -> None:
    """Show DistributedDataParallel the backward pass of some rows, which changes nothing else.

    It rebuilds its buckets after the first backward pass, and their layout decides in which order
    three or more processes add numbers up. Without this a training that resumes from a checkpoint
    would take its first step in another order than one that never ended.
    """
    context.wrapped_model.train()
    for norm in context.frozen_norms:
        norm.eval()
    snapshot = snapshot_buffers(context.buffers)
    # Compiled dropout draws from this generator alone; every step seeds it anew.
    context.dropout_rng.begin_step(0, len(target), slice(None))
    loss, _ = find_loss(replace(context, autocast=nullcontext()), batch, target, None)
    loss.backward()  # type: ignore[no-untyped-call]
    context.dropout_rng.end_epoch()
    snapshot.put_back()
    zero_grad(context)
