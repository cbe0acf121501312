"""A step as one CUDA graph: all that it launches on the device, recorded once and played as one.

A small model's step is some hundred launches of some microseconds each, more than their work takes;
a graph is one launch. What is played runs on the memory that it was recorded with, so whatever is
another in each step lies there before: the rows, the learning rates, the sums of the epoch; and the
generator of dropout is seeded. The kernels and the order of sums are the same, so the bits are too,
and a machine may do without (`REPRISE_CUDA_GRAPHS`).

What a model does in Python is not played again. So a recording is tried on the step that it was
recorded for, beside the step itself: where they differ in a bit, where the model or the loss has
counted or Python has drawn meanwhile, or where the device is asked for a number, all steps are
taken one by one. A model that counts in a place of its own and goes by it only later is not found
out. A recording has memory of its own; where it is tight, do without.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from stages.common.errors import UserError
from stages.training.data.batching import Share
from stages.training.device.compile import LAUNCH_SECONDS, OPERATIONS_PER_SECOND
from stages.training.device.distributed import World
from stages.training.device.rng import put_generators, read_generators
from stages.training.optim.registry import resolve
from stages.training.params import TrainParams
from stages.training.state import ON_DEVICE, State, Sums
from stages.training.step.cuda_graph_capture import (
    Recorder,
    Recording,
    make_recording,
    record_on_cuda,
    settings_of,
)
from stages.training.step.step import Step

ASKED = "REPRISE_CUDA_GRAPHS"
# Steps before the recording: libraries set themselves up in the first, optimizers their state.
NUM_BEFORE = 3
# Their fused forms take a learning rate that lies on the device.
OPTIMIZERS = (Adam, AdamW, SGD)


def choose_graphs(
    params: TrainParams,
    device: torch.device,
    num_products: int,
    world: World,
    *,
    precision: str,
    compiled: bool,
) -> tuple[bool, str]:
    """Whether to play steps as a graph, and the choice in words; on a CPU neither.

    `num_products` of a weight and a row are in a step. Not measured on a GPU yet, so a graph has to
    be asked for: by `auto`, for steps whose launches may take longer than their work, or by `on`.
    Raises UserError for a wrong `REPRISE_CUDA_GRAPHS`.
    """
    asked = os.environ.get(ASKED, "off")
    if asked not in ("off", "auto", "on"):
        raise UserError(f"{ASKED} is '{asked}': it must be off, auto or on")
    if device.type != "cuda":
        if asked == "on":
            raise UserError(f"{ASKED} is 'on', which takes a GPU: the device is {device.type}")
        return False, ""
    if asked == "off":
        return False, f"step by step: {ASKED} asks for no CUDA graph"
    reasons = {
        "several processes share them": world.size > 1,
        "the model is compiled": compiled,
        "fp16 looks for its factor": precision == "fp16",
        "micro-batches divide them": params.micro_batch_size is not None,
        f"{params.optimizer.name} is not among those that it knows": not issubclass(
            resolve("optimizer", params.optimizer)[0], OPTIMIZERS
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            return False, f"no CUDA graph of the steps: {reason}"
    if asked == "auto" and 6 * num_products / OPERATIONS_PER_SECOND > LAUNCH_SECONDS:
        return False, "no CUDA graph of the steps: their work takes longer than their launches"
    return True, f"steps as a CUDA graph: {ASKED}"


@dataclass
class GraphedStep:
    """Takes steps of `num_rows` rows by a recording, as soon as it has one; others one by one.

    `record` makes it. What can't be recorded is said once, and taken one by one from there on.
    """

    step: Step
    num_rows: int
    record: Recorder = record_on_cuda
    num_taken: int = 0
    refused: bool = False
    _recording: Recording | None = field(default=None, repr=False)

    def take(self, share: Share, state: State) -> None:
        """Learn from the rows of a batch, as `Step.take` does."""
        # An odd last batch, and what a full memory has divided, are of another size.
        fits = share.num_rows == self.num_rows and state.result.micro_batch_size is None
        recording = self._recording if fits else None
        if recording is not None and recording.settings != settings_of(self.step):
            self._refuse("the optimizer's settings change from step to step")
            recording = None
        if recording is not None:
            recording.play(share, state.sums)
        elif fits and not self.refused and self._is_time():
            self._try_recording(share, state)
        else:
            self._take_itself(share, state)

    def _is_time(self) -> bool:
        return self.num_taken >= NUM_BEFORE and self.step.decides_unseen()

    def _take_itself(self, share: Share, state: State) -> None:
        self.num_taken += 1
        self.step.take(share, state)
        if state.result.micro_batch_size is not None and self._recording is not None:
            self._refuse("the memory is full")

    def _refuse(self, reason: str) -> None:
        print(f"no CUDA graph, the steps are taken one by one: {reason}", flush=True)
        self.refused, self._recording = True, None

    def _try_recording(self, share: Share, state: State) -> None:
        """Take a step itself, and see whether a recording of it comes to the same bits."""
        held: list[Tensor] = []
        played: list[Tensor] = []
        put_back = None
        try:
            recording = make_recording(self.step, share, state.model, self.record)
            held, put_back = self._remember(state.model, share.target.device)
            sums = replace(state.sums, **_copied(state.sums))
            recording.play(share, sums)
            played = [tensor.clone() for tensor in (*held, *_numbers(sums))]
        except RuntimeError as error:
            # Of a recording that fails torch tells that it did; why is in the error before.
            self._refuse(str(error.__context__ or error).strip().split("\n")[0])
        if put_back is not None:
            put_back()
        self._take_itself(share, state)
        if self.refused:
            return
        taken = [*held, *_numbers(state.sums)]
        if all(torch.equal(a, b) for a, b in zip(played, taken, strict=True)):
            self._recording = recording
        else:
            self._refuse("a recorded step comes to other numbers than the step itself")

    def _remember(
        self, model: nn.Module, device: torch.device
    ) -> tuple[list[Tensor], Callable[[], None]]:
        """All that a step changes on the device; and what puts it back as it is now."""
        state = self.step.optimizer.state
        held = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]
        held += [v for known in state.values() for v in known.values() if isinstance(v, Tensor)]
        before = [tensor.clone() for tensor in held]
        drawn = read_generators(device)

        def put_back() -> None:
            for tensor, values in zip(held, before, strict=True):
                tensor.copy_(values)
            put_generators(drawn, device)

        return held, put_back


def _numbers(sums: Sums) -> list[Tensor]:
    """What a step adds up on the device."""
    return [getattr(sums, name) for name in ON_DEVICE]


def _copied(sums: Sums) -> dict[str, Any]:
    """What a step adds up, in tensors of its own where it is in tensors."""
    values = {name: getattr(sums, name) for name in ON_DEVICE}
    return {n: v.clone() if isinstance(v, Tensor) else v for n, v in values.items()}
