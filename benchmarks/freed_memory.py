"""What it brings that a training keeps the memory that a step frees.

    python -m benchmarks.freed_memory --rounds 3

The cases of `benchmarks.train`, each training in a process of its own, with the C library as it is
and as `keep_freed_memory` has it, in turns: milliseconds of the processor a step, and how often the
kernel had to hand out a page. A variable `MALLOC_…` leaves the C library as it is.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

import torch

from benchmarks.train import EPOCHS, STEPS_PER_EPOCH, cases, make_data, make_params, reprise

# The number that glibc has by itself.
AS_IT_IS = {"MALLOC_ARENA_TEST": "8"}


def main() -> None:
    """Measure and print rows of RESULTS.md."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="", help="only those whose name holds it")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _train(*options.one)
        return
    print("| case | batch | as it is, ms a step | kept ÷ as it is | faults a step | kept |")
    print("|---|---|---|---|---|---|")
    for number, case in enumerate(cases()):
        for batch_size in (32, 256) if options.cases in case.name else ():
            rounds = [
                [_measure(number, batch_size, variables) for variables in (AS_IT_IS, {})]
                for _ in range(options.rounds)
            ]
            ratios = [kept[0] / before[0] for before, kept in rounds]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            step, faults, fewer = (
                statistics.median(values)
                for values in (
                    [before[0] for before, _ in rounds],
                    [before[1] for before, _ in rounds],
                    [kept[1] for _, kept in rounds],
                )
            )
            row = f"{step:.2f} | {statistics.median(ratios):.2f} ({spread}) | {faults:.0f}"
            print(f"| {case.name} | {batch_size} | {row} | {fewer:.0f} |", flush=True)


def _measure(number: int, batch_size: int, variables: dict[str, str]) -> tuple[float, float]:
    """Milliseconds and faults a step of a training in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-m", "benchmarks.freed_memory", "--one"]
    done = subprocess.run(
        [*command, str(number), str(batch_size)],
        env={**clean, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    milliseconds, faults = done.stdout.split()[-2:]
    return float(milliseconds), float(faults)


def _train(number: int, batch_size: int) -> None:
    """Train once to warm up, then once more, and print what that took a step."""
    torch.set_num_threads(1)
    case = cases()[number]
    data = make_data(case, batch_size)
    params = make_params(data, batch_size)
    for _ in range(2):
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
        reprise(case.make(), data, params)
        seconds = time.process_time() - began
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before.ru_minflt
    num_steps = EPOCHS * STEPS_PER_EPOCH
    print(1000 * seconds / num_steps, faults / num_steps)


if __name__ == "__main__":
    main()
