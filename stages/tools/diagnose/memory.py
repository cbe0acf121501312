"""The number of rows that the memory holds in a step, measured from two rows upwards.

The step is that of the loop, which halves by itself what does not fit. More rows are not tried
where, by what the last ones took, the system would have to kill this process or another.
"""

import resource
import sys
from collections.abc import Iterator
from dataclasses import replace

import psutil
import torch

from stages.tools.diagnose.measured import Measured, quiet, tell, training_of
from stages.tools.training_tool import Training
from stages.training.device.device import choose_device
from stages.training.device.environment import memory_of
from stages.training.state import State

CAUSE = "the memory is full"
# Of what is free: others need some as well.
USABLE = 0.8
MB = 10**6


def measure() -> Iterator[Measured]:
    """Take a step with 2, 4, 8, … rows at once, up to the batch."""
    training, most = training_of(), 0
    batch = training.params.batch_size
    before, last = peak_bytes(), 0
    for size in sizes(batch):
        if most and last > USABLE * free_bytes():
            told = f"{most} rows at once fit; {size} would take {last / MB:.0f} MB more"
            what = f"{told}, and {free_bytes() / MB:.0f} MB are free"
            yield Measured("note", what, CAUSE, _mend(most, batch))
            return
        fits = rows_that_fit(training, size)
        if fits < size:
            # A half that fits was found by the loop, or before.
            best = max(most, fits)
            what = f"{best} rows at once fit, {size} do not"
            yield Measured("note", what, CAUSE, _mend(best, batch))
            return
        most, now = size, peak_bytes()
        # The next one takes about as much again as all of this one did.
        before, last = now, 2 * (now - before)
        if size < batch:
            tell(Measured("note", f"{size} rows at once fit", passing=True))
    what = f"a whole batch of {batch} rows fits at this moment, at {peak_bytes() / MB:.0f} MB"
    yield Measured("ok", f"{what}; {free_bytes() / MB:.0f} MB are free")


def sizes(batch: int) -> list[int]:
    """The numbers of rows to try: the powers of two below the batch, and the batch."""
    below = [2**n for n in range(1, batch.bit_length()) if 2**n < batch]
    return [*below, batch]


def rows_that_fit(training: Training, num_rows: int) -> int:
    """The rows that a step of `num_rows` took at once. Raises UserError if not one row fits."""
    taken = num_rows

    def after(state: State) -> None:
        nonlocal taken
        taken = state.result.micro_batch_size or num_rows

    changed = {"batch_size": num_rows, "micro_batch_size": None}
    with quiet():
        replace(training, params=training.params.model_copy(update=changed)).take_steps(
            1, lambda _: None, after
        )
    return taken


def peak_bytes() -> int:
    """The most that this process, or its GPU, has held so far."""
    if choose_device().type == "cuda":
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_bytes() -> int:
    """The memory that this process could still get, on the device that it trains on."""
    device = choose_device()
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    held = int(psutil.Process().memory_info().rss)
    return max(0, min(int(psutil.virtual_memory().available), memory_of(device) - held))


def _mend(rows: int, batch: int) -> tuple[str, ...]:
    if rows < 1:
        return ("a smaller model (build.model)",)
    return (f"train.micro_batch_size: {rows}   # a batch of {batch} in parts: the same training",)
