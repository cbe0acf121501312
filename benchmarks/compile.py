"""Whether a compilation pays on this machine's CPU: `python -m benchmarks.compile`.

The step of each case of `benchmarks.train`, compiled and as it is, in turns in one process with one
thread; and the processor time that the compilation took, its C++ compiler's included (of code that
no cache of torch's has). What `stages/training/device/compile.py` makes of it is its rule.
"""

import os
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.train import BATCH_SIZES, Case, cases, make_data, make_params
from stages.training.build import assemble
from stages.training.data.batching import epoch_batches, local_batches
from stages.training.device.distributed import World

STEPS, ROUNDS = 60, 5


def make_step(case: Case, batch_size: int, *, compiled: bool) -> Callable[[int], None]:
    """A function that takes so many steps of the project's own."""
    data = make_data(case, batch_size)
    params = make_params(data, batch_size).model_copy(update={"compile": compiled})
    assembly = assemble(case.make(), data, params, 0, World())
    order: tuple[Tensor, ...] = epoch_batches(len(data.train), batch_size, 0, 1)

    def take(num_steps: int) -> None:
        for batch in local_batches(data.train, order[:num_steps], World(), 0):
            assembly.train_step(batch, assembly.state)

    return take


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def main() -> None:
    """Measure and print a row for each case and batch size."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    table = Table("case", "batch", "eager, ms a step", "compiled ÷ eager", "to compile, s")
    # torch's own modules are loaded by the first compilation.
    torch.compile(nn.Linear(1, 1))(torch.zeros(1, 1))
    for case in cases():
        for batch_size in BATCH_SIZES:
            eager = make_step(case, batch_size, compiled=False)
            compiled = make_step(case, batch_size, compiled=True)
            eager(2)
            began = processor_seconds()
            compiled(2)
            cost = processor_seconds() - began
            times: list[list[float]] = [[], []]
            for _ in range(ROUNDS):
                for take, found in zip((eager, compiled), times, strict=True):
                    began = time.process_time()
                    take(STEPS)
                    found.append((time.process_time() - began) / STEPS)
            ratios = sorted(b / a for a, b in zip(*times, strict=True))
            shown = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            milliseconds = f"{1000 * statistics.median(times[0]):.2f}"
            table.add_row(case.name, str(batch_size), milliseconds, shown, f"{cost:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
