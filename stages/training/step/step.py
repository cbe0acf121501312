"""One optimizer step: the gradient of a batch's mean loss, then the optimizer.

A batch may be divided twice: over the processes, and within one into micro-batches that fit its
memory. Neither changes the gradient except in the last digits, nor which rows dropout takes.

A step whose loss or gradient is not finite is skipped: weights, buffers (the statistics of a batch
norm) and optimizer stay as they were.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

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
from stages.training.state import EpochTotals, State
from stages.training.step.buffer_snapshot import BufferSnapshot, Place, snapshot_buffers


@dataclass(frozen=True)
class StepContext:
    """The parts that all steps of a training share.

    `wrapped_model` is the model, or what compiles it or keeps it equal in all processes of `world`.
    `weights` are those that are trained (of sharded weights, this process's parts), `buffers` the
    places of the model's buffers, such as the statistics of a batch norm. `frozen_norms` stay in
    evaluation mode, since their weights are frozen. `clip_norm` inf and `clip_value` None: no
    clipping. `grad_norm_fn` gives the norm of the whole gradient. With `equal_forwards` all
    processes call the model equally often, since FSDP gathers the weights in each call.
    """

    wrapped_model: nn.Module
    loss_fn: nn.Module
    optimizer: Optimizer
    dropout_rng: DropoutRng
    world: World
    clip_norm: float
    weights: list[nn.Parameter]
    autocast: AbstractContextManager[object] = field(default_factory=nullcontext)
    scaler: GradScaler | None = None
    augment: Callable[[Batch], Batch] | None = None
    clip_value: float | None = None
    frozen_norms: Sequence[nn.Module] = ()
    grad_norm_fn: Callable[[list[Tensor]], Tensor] = nn.utils.get_total_norm
    equal_forwards: bool = False
    buffers: Sequence[Place] = ()


def train_step(step: StepContext, batch: LocalBatch, state: State) -> None:
    """Learn from the rows of a batch; add loss, norm and rows to the totals of the epoch."""
    totals, world = state.totals, step.world
    snapshot = snapshot_buffers(step.buffers)

    # zero_grad, then forward and backward over micro-batches
    loss = compute_gradients(step, batch, state, snapshot).item()

    # unscale
    if step.scaler is not None:
        step.scaler.unscale_(step.optimizer)

    # skip if not finite: all processes must agree, so they look at the norm, which they share. A
    # single process looks at the loss too: it can be inf while the gradient is finite. Of several,
    # one with a loss that is not finite has made its gradient nan (`_poison_if_not_finite`).
    grad_norm = find_grad_norm(step)
    norm = grad_norm.item()
    if math.isfinite(norm) and (world.size > 1 or math.isfinite(loss)):
        # clip
        if norm > step.clip_norm:
            nn.utils.clip_grads_with_norm_(step.weights, step.clip_norm, grad_norm)
        if step.clip_value is not None:
            nn.utils.clip_grad_value_(step.weights, step.clip_value)

        # step: not `scaler.step`, which would decide on skipping again; `unscale_` has told
        # `update` what it found
        step.optimizer.step()

        # totals: the loss is scaled to this process's share of the batch, so that the sum over all
        # processes is that of the batch
        totals.add_step(loss, norm, batch.global_batch_size / world.size)
    else:
        snapshot.put_back()
        totals.consecutive_skips += 1

    if step.scaler is not None:
        step.scaler.update()
    totals.num_steps += 1


def train_step_on_device(step: StepContext, batch: LocalBatch, state: State) -> None:
    """Take the same step on a GPU, without waiting for it: a tensor there decides on skipping."""
    snapshot = snapshot_buffers(step.buffers)
    loss = compute_gradients(step, batch, state, snapshot)
    if step.scaler is not None:
        step.scaler.unscale_(step.optimizer)
    num_rows = batch.global_batch_size / step.world.size
    applied = apply_on_device(step, loss, find_grad_norm(step), num_rows, state.totals)
    snapshot.keep_where(applied)
    if step.scaler is not None:
        step.scaler.update()
    state.totals.num_steps += 1


def compute_gradients(
    step: StepContext, batch: LocalBatch, state: State, snapshot: BufferSnapshot
) -> Tensor:
    """Leave the gradient of a batch's mean loss in the weights; return the local part of it ().

    Where the memory is full, fewer rows at once are tried, from the buffers of `snapshot` on.
    """
    while True:
        zero_grad(step)
        size = state.result.micro_batch_size
        try:
            return accumulate_gradients(step, batch, state.totals.num_steps, size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except block: the traceback would keep the activations alive.
        snapshot.put_back()
        state.result.micro_batch_size = halve_micro_batch(size, len(batch.target), step.world)


def accumulate_gradients(
    step: StepContext, batch: LocalBatch, number: int, size: int | None
) -> Tensor:
    """Forward and backward of step `number`, `size` rows at a time (None: all at once).

    Returns this process's part of the mean loss ().
    """
    num_rows, losses = len(batch.target), []
    # The first process has the most rows.
    most = num_rows
    if step.equal_forwards:
        most = math.ceil(batch.global_batch_size / step.world.size)
    for part in micro_batches(most, size):
        rows, target, of_rows = batch.batch, batch.target, batch.weight
        weight = batch.loss_weight
        local_rows = batch.local_rows
        if part is not None:
            weight *= len(range(num_rows)[part]) / num_rows
            # A process without rows takes one row at weight 0, so that all call the model.
            taken = part if weight else slice(1)
            rows, target = take(rows, taken), target[taken]
            of_rows = None if of_rows is None else of_rows[taken]
            local_rows = to_global_slice(batch, taken)
        step.dropout_rng.begin_step(number, batch.global_batch_size, local_rows)
        with _sync_gradients(step, last=part is None or part.stop >= most):
            rows = rows if step.augment is None else step.augment(rows)
            with step.autocast:
                scores = step.wrapped_model(rows)
            loss = find_loss(step.loss_fn, match_target_shape(scores, target), target, of_rows)
            # Skip a multiplication that changes nothing.
            loss = loss if weight == 1 else loss * weight
            scaled = loss if step.scaler is None else step.scaler.scale(loss)
            start = _poison_if_not_finite(loss) if step.world.size > 1 else None
            scaled.backward(start)  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def apply_on_device(
    step: StepContext, loss: Tensor, norm: Tensor, num_rows: float, totals: EpochTotals
) -> Tensor:
    """Clip, step and add to the totals without waiting for the device; it decides on skipping.

    Returns on the device whether the step is applied (). Python waits for it only where the
    optimizer is not fused, and in the first step of a fused SGD with momentum.
    """
    finite = (norm + loss if step.world.size == 1 else norm).isfinite()
    if step.clip_norm < math.inf:
        nn.utils.clip_grads_with_norm_(step.weights, step.clip_norm, norm)
    if step.clip_value is not None:
        nn.utils.clip_grad_value_(step.weights, step.clip_value)
    if _skips_by_found_inf(step.optimizer):
        # What a fused optimizer looks at under a gradient scaler: it leaves all as it is.
        step.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        step.optimizer.step()
    elif finite.item():
        step.optimizer.step()
    totals.to(norm.device)
    zero = torch.zeros_like(norm, dtype=torch.float64)
    totals.loss += torch.where(finite, loss.double() * num_rows, zero)
    totals.norm += torch.where(finite, norm.double(), zero)
    totals.rows += finite * num_rows
    totals.steps_applied += finite
    totals.consecutive_skips += 1
    totals.consecutive_skips *= ~finite
    return finite


def _skips_by_found_inf(optimizer: Optimizer) -> bool:
    """Check whether the optimizer's next step can be left to the device, which skips it or not."""
    defaults = optimizer.defaults
    # A first step that is not applied would leave a fused SGD's momentum unset.
    return bool(defaults.get("fused") and (optimizer.state or not defaults.get("momentum")))


def find_grad_norm(step: StepContext) -> Tensor:
    """The norm of the whole gradient ()."""
    return step.grad_norm_fn([w.grad for w in step.weights if w.grad is not None])


def zero_grad(step: StepContext) -> None:
    """Drop the gradients of the weights that are trained."""
    for weight in step.weights:
        weight.grad = None


def _poison_if_not_finite(loss: Tensor) -> Tensor:
    """Return the gradient that `backward` starts from (): nan where the loss is not finite.

    The other processes see the averaged gradient alone, and must skip the step as well.
    """
    return torch.where(loss.isfinite(), 1.0, math.nan).to(loss.dtype)


def _sync_gradients(step: StepContext, *, last: bool) -> "nullcontext[None]":
    """The processes average their gradients once a step, after the last micro-batch.

    Not so where they divide the weights: one may not have the memory for a whole gradient.
    """
    if last or not isinstance(step.wrapped_model, DistributedDataParallel):
        return nullcontext()
    return step.wrapped_model.no_sync()  # type: ignore[return-value]


def build_ddp_buckets(step: StepContext, batch: Batch, target: Tensor) -> None:
    """Show DistributedDataParallel the backward pass of some rows, which changes nothing else.

    It rebuilds its buckets after the first backward pass, and their layout decides in which order
    three or more processes add numbers up. Without this a training that resumes from a checkpoint
    would take its first step in another order than one that never ended.
    """
    model = step.wrapped_model.train()
    for norm in step.frozen_norms:
        norm.eval()
    snapshot = snapshot_buffers(step.buffers)
    # Compiled dropout draws from this generator alone; every step seeds it anew.
    step.dropout_rng.begin_step(0, len(target), slice(None))
    step.loss_fn(match_target_shape(model(batch), target), target).backward()
    step.dropout_rng.end_epoch()
    snapshot.put_back()
    zero_grad(step)


def find_loss(loss_fn: nn.Module, scores: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    """The mean loss () of some rows, or of their weights (rows,) times their losses."""
    loss: Tensor = loss_fn(scores, target) if weight is None else loss_fn(scores, target, weight)
    return loss


def match_target_shape(scores: Tensor, target: Tensor) -> Tensor:
    """Scores as the loss takes them: (rows,) beside real values, (rows, classes) beside codes."""
    if scores.dtype in (torch.bfloat16, torch.float16):
        # A loss is summed up in more digits than the forward pass has.
        scores = scores.float()
    return scores.squeeze(1) if target.is_floating_point() else scores
