"""A step as one CUDA graph: all that it launches on the device, recorded once and played as one.

A small model's step is some hundred launches of some microseconds each, more than their work takes;
a graph is one launch. What is played runs on the memory that it was recorded with, so whatever is
another in each step lies there before: the rows, the learning rates, the sums of the epoch; and the
generator of dropout is seeded. The kernels and the order of sums are the same, so the bits are too,
and a machine may do without (`REPRISE_CUDA_GRAPHS`).

What a model does in Python is not played again. One that draws or counts there is found out as it
is recorded, and so is one that asks the device for a number; both are then trained step by step.
"""

import os
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from stages.common.errors import UserError
from stages.train.compiled import LAUNCH_SECONDS, OPERATIONS_PER_SECOND
from stages.train.machine import World
from stages.train.names import resolve
from stages.train.params import TrainParams
from stages.train.shares import Share
from stages.train.state import State, Sums
from stages.train.step import Step

ASKED = "REPRISE_CUDA_GRAPHS"
# Steps before the recording: libraries set themselves up in the first, optimizers their state.
NUM_BEFORE = 3
# Their fused forms take a learning rate that lies on the device.
OPTIMIZERS = (Adam, AdamW, SGD)

# Records what a function launches; what it returns plays it. The generator is drawn from.
Recorder = Callable[[Callable[[], None], torch.Generator], Callable[[], None]]


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


def record_on_cuda(run: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Record what `run` launches on the current CUDA device; what is returned plays it."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    # Other threads may go on: one writes checkpoints, one may bring rows.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay


@dataclass
class _Recording:
    """A recorded step, and the places that it reads from and adds to."""

    share: Share
    sums: Sums
    rates: list[Tensor]
    # What else stands in the optimizer's groups; in the recording it stays as it was.
    settings: list[dict[str, Any]]
    play: Callable[[], None]


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
    _recording: _Recording | None = field(default=None, repr=False)

    def take(self, share: Share, state: State) -> None:
        """Learn from the rows of a batch, as `Step.take` does."""
        # An odd last batch, and what a full memory has divided, are of another size.
        fits = share.num_rows == self.num_rows and state.result.micro_batch_size is None
        recording = self._find_recording(share, state.model) if fits else None
        if recording is None:
            self.num_taken += 1
            self.step.take(share, state)
            return
        _lay(share, recording.share)
        _join(state.sums, recording.sums)
        for rate, group in zip(recording.rates, self.step.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.step.masks.begin_step(state.sums.num_steps, share.num_rows, share.mine)
        self.step.masks.seed()
        recording.play()
        state.sums.num_steps += 1

    def _find_recording(self, share: Share, model: nn.Module) -> _Recording | None:
        """What was recorded; None: it is too early for that, or it can't be."""
        if self.refused or self.num_taken < NUM_BEFORE or not self.step.decides_unseen():
            return None
        try:
            if self._recording is None:
                self._recording = self._record(share, model)
            if self._recording.settings != _settings_of(self.step):
                raise RuntimeError("the optimizer's settings change from step to step")
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
            print(f"no CUDA graph, the steps are taken one by one: {reason}", flush=True)
            self.refused, self._recording = True, None
        return self._recording

    def _record(self, share: Share, model: nn.Module) -> _Recording:
        """Record a step without taking it. Raises RuntimeError where that can't be."""
        step, device = self.step, share.target.device
        batch = {kind: values.clone() for kind, values in share.batch.items()}
        held = replace(share, batch=batch, target=share.target.clone())
        sums = Sums().put_on(device)
        groups = step.optimizer.param_groups
        rates = [torch.zeros((), device=device) for _ in groups]
        step.masks.begin_step(0, share.num_rows, share.mine)
        before, put_back = _python_of(model)
        could_be_captured = [group.get("capturable") for group in groups]
        try:
            for group in groups:
                # What torch asks for before it records; a fused step is the same with and without.
                group["capturable"] = True
            play = self.record(lambda: step.take_unseen(held, sums, rates), step.masks.seed())
            after, _ = _python_of(model)
            if after != before:
                raise RuntimeError("the model draws or counts in Python, which would not be played")
        finally:
            put_back()
            for group, could in zip(groups, could_be_captured, strict=True):
                if could is None:
                    del group["capturable"]
                else:
                    group["capturable"] = could
        return _Recording(held, sums, rates, _settings_of(step), play)


def _lay(share: Share, held: Share) -> None:
    """Put the rows of a step where the recorded one reads them."""
    for kind, values in share.batch.items():
        held.batch[kind].copy_(values)
    held.target.copy_(share.target)


def _join(sums: Sums, held: Sums) -> None:
    """Let the sums of the epoch be those that the recorded step adds to, from where they are."""
    for name in ("loss", "norm", "rows", "applied", "lost"):
        value, mine = getattr(sums, name), getattr(held, name)
        if value is mine:
            continue
        if isinstance(value, Tensor):
            mine.copy_(value)
        else:
            mine.fill_(value)
        setattr(sums, name, mine)


def _settings_of(step: Step) -> list[dict[str, Any]]:
    """What the optimizer's groups hold beside the weights and the rate."""
    groups = step.optimizer.param_groups
    return [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in groups]


def _python_of(model: nn.Module) -> tuple[object, Callable[[], None]]:
    """What Python draws from and the plain values of a model's modules; and what puts them back."""
    drawn, of_numpy, on_host = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    plain = {
        (module, key): value
        for module in model.modules()
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str)
    }

    def put_back() -> None:
        random.setstate(drawn)
        np.random.set_state(of_numpy)  # noqa: NPY002
        torch.set_rng_state(on_host)
        for (module, key), value in plain.items():
            setattr(module, key, value)

    return (drawn, pickle.dumps(of_numpy), on_host.tolist(), plain), put_back
