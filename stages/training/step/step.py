"""One step: the gradient of a batch's mean loss, then what the optimizer makes of it.

A batch may be divided twice: over the processes, and within one into micro-batches that fit its
memory. Neither changes the gradient but in the last digits, nor which rows dropout takes.

A step whose loss or gradient is no finite number is not applied: weights, buffers (what a batch
norm counts) and optimizer stay as they were. Each process then knows it from the norm of the
gradient, which all of them share.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from stages.features.batch import Batch, take
from stages.model.dropout import Masks
from stages.training.data.batching import Share, micro_batches, within
from stages.training.device.distributed import World
from stages.training.device.out_of_memory import halve, is_out_of_memory
from stages.training.state import State, Sums
from stages.training.step.buffer_snapshot import Place, Remembered, remember


@dataclass(frozen=True)
class Step:
    """What all steps of a training share. `clip_norm` is inf, `clip_value` None: no clipping.

    `network` is the model, or what keeps it the same in all processes of `world`; `weights` are
    those that move, `still` the norms that stay in evaluation mode, since theirs don't, `buffers`
    what the model counts beside them. Where the processes divide the weights, these are this one's
    parts; `norm_of` gives the norm of the whole, and all call the model equally often (`in_step`).
    What is `unseen` is on a device that nobody waits for: it decides itself whether a step is
    applied.
    """

    network: nn.Module
    loss_of: nn.Module
    optimizer: Optimizer
    masks: Masks
    world: World
    clip_norm: float
    weights: list[nn.Parameter]
    cast: AbstractContextManager[object] = field(default_factory=nullcontext)
    scaler: GradScaler | None = None
    augment: Callable[[Batch], Batch] | None = None
    clip_value: float | None = None
    still: Sequence[nn.Module] = ()
    norm_of: Callable[[list[Tensor]], Tensor] = nn.utils.get_total_norm
    in_step: bool = False
    unseen: bool = False
    buffers: Sequence[Place] = ()

    def take(self, share: Share, state: State) -> None:
        """Learn from the rows of a batch; add what came of it to the sums of `state`."""
        before = remember(self.buffers)
        sums, loss = state.sums, self.evaluate(share, state, before)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm, num_rows = self._find_norm(), share.num_rows / self.world.size
        if self.unseen:
            before.keep_where(self.apply_unseen(loss, norm, num_rows, sums))
        elif not self._apply(loss.item(), norm, num_rows, sums):
            before.put_back()
        if self.scaler is not None:
            self.scaler.update()
        sums.num_steps += 1

    def take_unseen(self, share: Share, sums: Sums, rates: Sequence[Tensor]) -> None:
        """What `take` does alone on a device, with nothing in it that Python decides.

        So a recording of it can be played for other numbers at the same places. `rates` () are
        the learning rates of the optimizer's groups; dropout draws from a seeded generator.
        """
        before = remember(self.buffers)
        self._drop_gradients()
        loss = self._add_gradients(share, 0, None, seeded=True)
        finite = self.apply_unseen(loss, self._find_norm(), float(share.num_rows), sums, rates)
        before.keep_where(finite)

    def evaluate(self, share: Share, state: State, before: Remembered) -> Tensor:
        """Leave the gradient of a batch's mean loss in the weights; return our part of the loss.

        Where the memory is full, fewer rows at once are tried, from the buffers of `before` on.
        """
        while True:
            self._drop_gradients()
            size = state.result.micro_batch_size
            try:
                return self._add_gradients(share, state.sums.num_steps, size)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Out here nothing holds what the model had computed any more.
            before.put_back()
            state.result.micro_batch_size = halve(size, len(share.target), self.world)

    def _apply(self, loss: float, norm: Tensor, num_rows: float, sums: Sums) -> bool:
        """Whether loss and gradient are finite numbers; then let the optimizer take its step."""
        length = norm.item()
        # Alone there is the loss itself to look at; its gradient may well be finite.
        if not (math.isfinite(length) and (self.world.size > 1 or math.isfinite(loss))):
            sums.lost += 1
            return False
        if length > self.clip_norm:
            nn.utils.clip_grads_with_norm_(self.weights, self.clip_norm, norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(self.weights, self.clip_value)
        self.optimizer.step()
        sums.loss += loss * num_rows
        sums.norm += length
        sums.rows += num_rows
        sums.applied += 1
        sums.lost = 0
        return True

    def apply_unseen(
        self,
        loss: Tensor,
        norm: Tensor,
        num_rows: float,
        sums: Sums,
        rates: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """As on a CPU, but the device decides; only an optimizer that can't makes us wait.

        Whether it is applied () stays on the device.
        """
        finite = (norm + loss if self.world.size == 1 else norm).isfinite()
        if self.clip_norm < math.inf:
            nn.utils.clip_grads_with_norm_(self.weights, self.clip_norm, norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(self.weights, self.clip_value)
        if self.decides_unseen():
            # What a fused optimizer looks at under a gradient scaler: it leaves all as it is.
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            self._move(rates)
        elif finite.item():
            self._move(rates)
        sums.put_on(norm.device)
        zero = torch.zeros_like(norm, dtype=torch.float64)
        sums.loss += torch.where(finite, loss.double() * num_rows, zero)
        sums.norm += torch.where(finite, norm.double(), zero)
        sums.rows += finite * num_rows
        sums.applied += finite
        sums.lost += 1
        sums.lost *= ~finite
        return finite

    def decides_unseen(self) -> bool:
        """Whether the next step may be left to the device, which applies it or not."""
        defaults = self.optimizer.defaults
        # A first step that is not applied would leave a fused SGD's momentum unset.
        return bool(
            defaults.get("fused") and (self.optimizer.state or not defaults.get("momentum"))
        )

    def _move(self, rates: Sequence[Tensor] | None) -> None:
        """Let the optimizer take its step; `rates` as the learning rates of its groups, if given.

        Else they are rounded to float32, which is what such tensors hold.
        """
        groups = self.optimizer.param_groups
        own = [group["lr"] for group in groups]
        try:
            for group, rate, given in zip(groups, own, rates or own, strict=True):
                group["lr"] = given if rates else float(np.float32(rate))
            self.optimizer.step()
        finally:
            for group, rate in zip(groups, own, strict=True):
                group["lr"] = rate

    def _find_norm(self) -> Tensor:
        """The norm of the whole gradient ()."""
        return self.norm_of([w.grad for w in self.weights if w.grad is not None])

    def _drop_gradients(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def _add_gradients(
        self, share: Share, number: int, size: int | None, *, seeded: bool = False
    ) -> Tensor:
        """Leave the gradient of step `number` in the weights; this process's part of the loss."""
        num_rows, losses = len(share.target), []
        # The first process has the most rows.
        most = math.ceil(share.num_rows / self.world.size) if self.in_step else num_rows
        for part in micro_batches(most, size):
            batch, target, mine, factor = share.batch, share.target, share.mine, share.factor
            if part is not None:
                factor *= len(range(num_rows)[part]) / num_rows
                # Without rows of its own it keeps in step with the others, at no weight.
                rows = part if factor else slice(1)
                batch, target, mine = take(batch, rows), target[rows], within(share, rows)
            self.masks.begin_step(number, share.num_rows, mine, seeded=seeded)
            with self._sync(last=part is None or part.stop >= most):
                batch = batch if self.augment is None else self.augment(batch)
                with self.cast:
                    scores = self.network(batch)
                loss = self.loss_of(fit_to_target(scores, target), target)
                # A product with 1 costs as much as any other.
                loss = loss if factor == 1 else loss * factor
                seed = None
                if self.world.size > 1:
                    # The others see a loss that is no number by the gradient alone.
                    seed = torch.where(loss.isfinite(), 1.0, math.nan).to(loss.dtype)
                raised = loss if self.scaler is None else self.scaler.scale(loss)
                raised.backward(seed)
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _sync(self, *, last: bool) -> "nullcontext[None]":
        """The processes average their gradients once a step, after the last micro-batch.

        Not so where they divide the weights: one may not have the memory for a whole gradient.
        """
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()  # type: ignore[return-value]


def settle_sums(step: Step, batch: Batch, target: Tensor) -> None:
    """Show DistributedDataParallel the backward pass of some rows, which changes nothing else.

    In the order of the first one that it sees it lays the gradients out anew, and where a number
    lies decides in which order three or more processes add it up. Without this a training that
    goes on from a checkpoint would take its first step in another order than one that never ended.
    """
    network = step.network.train()
    for norm in step.still:
        norm.eval()
    before = remember(step.buffers)
    # Compiled dropout draws from masks alone; every step seeds them anew.
    step.masks.begin_step(0, len(target), slice(None))
    step.loss_of(fit_to_target(network(batch), target), target).backward()
    step.masks.end_epoch()
    before.put_back()
    for weight in step.weights:
        weight.grad = None


def fit_to_target(scores: Tensor, target: Tensor) -> Tensor:
    """Scores as the loss takes them: (rows,) beside real values, (rows, classes) beside codes."""
    if scores.dtype in (torch.bfloat16, torch.float16):
        # A loss is summed up in more digits than the forward pass has.
        scores = scores.float()
    return scores.squeeze(1) if target.is_floating_point() else scores
