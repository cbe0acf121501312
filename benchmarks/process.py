"""What a training costs as a process: peak memory, time to the first step.

    python -m benchmarks.process [--memory | --start] [--rounds 5] [--cases mlp]

Each figure is that of processes of their own, the kinds in turns; what counts are the differences
inside a round. Of time the processor's is told beside the clock's, on a machine with other work the
steadier one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

# The contenders of `benchmarks.train` in a process of their own: what it prints is in bytes.
ONE_TRAINING = """
import sys, warnings, logging
from pathlib import Path
import torch
from benchmarks.contenders import contenders
from benchmarks.train import cases, make_data, make_params
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
torch.set_num_threads(1)
case = cases()[int(sys.argv[1])]
data = make_data(case, int(sys.argv[2]))
if sys.argv[3] != "nothing":
    # More epochs take no more memory.
    params = make_params(data, int(sys.argv[2])).model_copy(update={"epochs": 1})
    contenders()[sys.argv[3]](case.make(), data, params)
# Of this program alone: getrusage also has the most of the one that it was forked from.
status = Path("/proc/self/status").read_text()
print(1024 * int(status.split("VmHWM:")[1].split()[0]))
"""
# Each ends where its last line stands, without the clean-up of Python's own end.
END = "os._exit(3)"
STARTS = {
    "import torch, TensorBoard's writer": f"""
import os, torch
from torch.utils.tensorboard.writer import SummaryWriter
{END}
""",
    "the same and a step by hand": f"""
import os, torch
from torch.utils.tensorboard.writer import SummaryWriter
model = torch.nn.Linear(8, 2)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
model(torch.ones(1, 8)).sum().backward()
optimizer.step()
{END}
""",
    "the stage train": f"""
import os, runpy
from stages.train.checkpoints import checkpointer
# What the loop calls after every step.
checkpointer.Checkpointer.__call__ = lambda self, state: {END}
runpy.run_module("stages.train", run_name="__main__")
""",
}


def main() -> None:
    """Measure and print a table for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default="", help="only those whose name holds it")
    options = parser.parse_args()
    if options.memory or not options.start:
        measure_memory(options.rounds, options.cases)
    if options.start or not options.memory:
        measure_start(options.rounds)


def measure_memory(rounds: int, part: str) -> None:
    """Peak memory of a training by each contender, less that of its data and imports alone."""
    from benchmarks.contenders import contenders
    from benchmarks.train import BATCH_SIZES, cases

    names = ["nothing", *contenders()]
    table = Table("case", "batch", "torch and data, MiB", *[f"{n}, MiB more" for n in names[1:]])
    for number, case in enumerate(cases()):
        for batch_size in BATCH_SIZES if part in case.name else ():
            peaks: dict[str, list[int]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    command = [sys.executable, "-c", ONE_TRAINING, str(number), str(batch_size)]
                    told = subprocess.run([*command, name], check=True, capture_output=True)
                    peaks[name].append(int(told.stdout.split()[-1]))
            base = statistics.median(peaks["nothing"])
            more = [_spread([(p - base) / 2**20 for p in peaks[n]], "{:.0f}") for n in names[1:]]
            table.add_row(case.name, str(batch_size), f"{base / 2**20:.0f}", *more)
    Console(width=160).print(table)


def measure_start(rounds: int) -> None:
    """From a process's start to its first step, beside the bare imports."""
    from tests.support.samples import mixed_table, run_stages, small_project

    with tempfile.TemporaryDirectory() as folder:
        project = small_project(Path(folder) / "project", mixed_table(), {})
        run_stages(project, "prepare", "build", "tune")
        # The seconds of the clock and of the processor.
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in STARTS}
        for number in range(rounds + 1):
            for name, code in STARTS.items():
                found = timed(code, project.path)
                # The first round writes bytecode.
                if number:
                    times[name].append(found)
    table = Table("what", "s", "s more than the imports", "s of the processor", "more")
    bare = next(iter(times.values()))
    for name, pairs in times.items():
        cells = []
        for which in range(2):
            seconds = [pair[which] for pair in pairs]
            more = [a[which] - b[which] for a, b in zip(pairs, bare, strict=True)]
            cells += [f"{statistics.median(seconds):.2f}", _spread(more, "{:+.2f}")]
        table.add_row(name, *cells)
    Console(width=140).print(table)


def timed(code: str, folder: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a Python process takes."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    assert os.waitstatus_to_exitcode(status) == 3, "it ended elsewhere"
    return seconds, used.ru_utime + used.ru_stime


def _spread(values: list[float], form: str) -> str:
    """The median, the smallest and the largest."""
    shown = [form.format(v) for v in (statistics.median(values), min(values), max(values))]
    return "{} ({} to {})".format(*shown)


if __name__ == "__main__":
    main()
