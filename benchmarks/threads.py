"""From which step on several threads pay on this machine: `python -m benchmarks.threads`.

The step of each case of `benchmarks.train`, and of larger MLPs, with one thread and with all cores,
in turns in one process; what counts are the ratios inside a turn. Beside them stand the products of
a weight and a row in a step, by which `SMALL_STEP` of `stages/training/device/environment.py` makes
its rule. It is the clock's time, so it says something only on a machine without other work.
`--cases`, `--batch`, `--rounds` and `--steps` shorten it.
"""

import argparse
import os
import statistics
import time
import warnings
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.compile import make_step
from benchmarks.train import BATCH_SIZES, STEPS_PER_EPOCH, Case, cases, of_zoo
from stages.training.device.environment import SMALL_STEP

# Their steps lie to both sides of the rule's threshold.
WIDTHS = (128, 256, 512, 1024)
# After the number of threads has changed, before the clock is looked at.
WARM_UP = 3


def wide_cases() -> list[Case]:
    """MLPs of two hidden layers, from a million products a step to some hundred."""
    inputs = ("numeric", (128,), 10)
    made = {
        width: of_zoo("mlp", {"width": width, "layers": 2, "dropout": 0.0}, inputs)
        for width in WIDTHS
    }
    return [replace(case, name=f"mlp 128-{w}-{w}-10") for w, case in made.items()]


def measure(
    case: Case, batch_size: int, counts: tuple[int, ...], num_steps: int, num_rounds: int
) -> list[list[float]]:
    """The seconds of a step in each round, for each number of threads."""
    take = make_step(case, batch_size, compiled=False)
    seconds: list[list[float]] = [[] for _ in counts]
    for _ in range(num_rounds):
        for count, found in zip(counts, seconds, strict=True):
            torch.set_num_threads(count)
            take(WARM_UP)
            began = time.perf_counter()
            take(num_steps)
            found.append((time.perf_counter() - began) / num_steps)
    return seconds


def main() -> None:
    """Measure and print a row for each case and batch size, the fewest products first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--steps", type=int, default=60, choices=range(1, STEPS_PER_EPOCH + 1), metavar="N"
    )
    parser.add_argument("--cases", default="", help="only those whose name holds it")
    parser.add_argument("--batch", type=int, choices=BATCH_SIZES, help="only this one")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    cores = os.cpu_count() or 1
    columns = ("1 thread, ms a step", f"{cores} threads ÷ 1", "the rule takes")
    table = Table("case", "batch", "products a step, M", *columns)
    rows = []
    for case in [*cases(), *wide_cases()]:
        num_weights = sum(weight.numel() for weight in case.make().parameters())
        sizes = [options.batch] if options.batch else BATCH_SIZES
        for batch_size in sizes if options.cases in case.name else ():
            products = num_weights * batch_size
            one, all_cores = measure(case, batch_size, (1, cores), options.steps, options.rounds)
            ratios = sorted(b / a for a, b in zip(one, all_cores, strict=True))
            rows.append(
                (
                    products,
                    case.name,
                    str(batch_size),
                    f"{products / 1e6:.2f}",
                    f"{1000 * statistics.median(one):.2f}",
                    f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                    "1" if products < SMALL_STEP else str(cores),
                )
            )
    for _, *shown in sorted(rows):
        table.add_row(*shown)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
