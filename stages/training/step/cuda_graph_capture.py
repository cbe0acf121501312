"""One step as it was recorded: making the recording, and playing it for other rows."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stages.training.data.batching import Share
from stages.training.device.rng import put_generators, read_generators
from stages.training.state import ON_DEVICE, Sums
from stages.training.step.step import Step

# Records what a function launches; what it returns plays it. The generator is drawn from.
Recorder = Callable[[Callable[[], None], torch.Generator], Callable[[], None]]


def record_on_cuda(run: Callable[[], None], generator: torch.Generator) -> Callable[[], None]:
    """Record what `run` launches on the generator's CUDA device; what is returned plays it."""
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.device(generator.device):
        stream = torch.cuda.current_stream()
        try:
            # Other threads may go on: one writes checkpoints, one may bring rows.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                run()
        finally:
            # torch does not leave the stream of a recording that fails.
            torch.cuda.set_stream(stream)

    def play() -> None:
        with torch.cuda.device(generator.device):
            graph.replay()

    return play


@dataclass(frozen=True)
class Recording:
    """A recorded step, and the places that it reads from and adds to.

    `settings` is what stands in the optimizer's groups beside the weights and the rates (): in the
    recording it stays as it was.
    """

    step: Step
    share: Share
    sums: Sums
    rates: list[Tensor]
    settings: list[dict[str, Any]]
    replay: Callable[[], None]

    def play(self, share: Share, sums: Sums) -> None:
        """Take the step for the rows of `share`; `sums` become those that it adds to."""
        step = self.step
        for kind, values in share.batch.items():
            self.share.batch[kind].copy_(values)
        self.share.target.copy_(share.target)
        _join(sums, self.sums)
        for rate, group in zip(self.rates, step.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        step.masks.begin_step(sums.num_steps, share.num_rows, share.mine)
        step.masks.seed()
        self.replay()
        sums.num_steps += 1


def make_recording(step: Step, share: Share, model: nn.Module, record: Recorder) -> Recording:
    """Record a step without taking it. Raises RuntimeError where that can't be."""
    device = share.target.device
    batch = {kind: values.clone() for kind, values in share.batch.items()}
    held = replace(share, batch=batch, target=share.target.clone())
    sums = Sums().put_on(device)
    groups = step.optimizer.param_groups
    rates = [torch.zeros((), device=device) for _ in groups]
    step.masks.begin_step(0, share.num_rows, share.mine)
    before, put_back = _python_of(model, step.loss_of)
    could_be_captured = [group.get("capturable") for group in groups]
    try:
        for group in groups:
            # What torch asks for before it records; a fused step is the same with and without.
            group["capturable"] = True
        replay = record(lambda: step.take_unseen(held, sums, rates), step.masks.seed())
        after, _ = _python_of(model, step.loss_of)
        if after != before:
            raise RuntimeError("the model or the loss draws or counts in Python")
    finally:
        put_back()
        for group, could in zip(groups, could_be_captured, strict=True):
            if could is None:
                del group["capturable"]
            else:
                group["capturable"] = could
    return Recording(step, held, sums, rates, settings_of(step), replay)


def _join(sums: Sums, held: Sums) -> None:
    """Let the sums of the epoch be those that the recorded step adds to, from where they are."""
    for name in ON_DEVICE:
        value, mine = getattr(sums, name), getattr(held, name)
        if value is mine:
            continue
        if isinstance(value, Tensor):
            mine.copy_(value)
        else:
            mine.fill_(value)
        setattr(sums, name, mine)


def settings_of(step: Step) -> list[dict[str, Any]]:
    """What the optimizer's groups hold beside the weights and the rate."""
    groups = step.optimizer.param_groups
    return [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in groups]


def _python_of(*trees: nn.Module) -> tuple[object, Callable[[], None]]:
    """What Python draws from and the plain values of all modules; and what puts them back."""
    host = torch.device("cpu")
    drawn = read_generators(host)
    plain = {
        (module, key): value
        for tree in trees
        for module in tree.modules()
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str)
    }

    def put_back() -> None:
        put_generators(drawn, host)
        for (module, key), value in plain.items():
            setattr(module, key, value)

    numpy = drawn["numpy"]["state"]
    # As lists: tensors have no one answer to whether they are equal.
    numbers = (drawn["python"], numpy["key"].tolist(), numpy["pos"], drawn["torch"].tolist())
    return (numbers, plain), put_back
