"""The time of a step by its operations: `python -m stages.tools.profile --steps 20`.

Some steps of the training of `params.yaml`, through the loop itself, under PyTorch's profiler; the
first ones, which also warm up, are left out. Written to `.reprise/profile/trace.json`: what ran
when, on each thread and on the GPU. It changes nothing else.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import profiler

from stages.common.params import Params
from stages.tools.training_tool import Training, at_least, prepare, run_tool
from stages.training.choices import sizes
from stages.training.device.compile import choose_compile

TRACE = Path(".reprise/profile/trace.json")
NUM_STEPS, NUM_WARM = 20, 10
NUM_ROWS = 15
MAX_NAME = 48
# The profiler's mark around each step: what of it belongs to no operator.
MARK = "ProfilerStep*"


@dataclass(frozen=True)
class Operator:
    """The time of an operator in the mean step, without those that it calls; `calls` are of all."""

    name: str
    calls: int
    cpu_ms: float
    gpu_ms: float


@dataclass(frozen=True)
class Profile:
    """The operators, what took longest first, and how long the mean step took; on a GPU, there."""

    operators: list[Operator]
    num_steps: int
    step_ms: float
    on_gpu: bool


def as_long(training: Training) -> Training:
    """`training`, compiled if the whole of it would be: a few steps alone would not repay it."""
    params, device = training.params, training.data.train.target.device
    numbers = sizes(training.model, training.data, params)
    compiles, why = choose_compile(params.compile, device, *numbers)
    print(why)
    return replace(training, params=params.model_copy(update={"compile": compiles}))


def measure(training: Training, num_steps: int, trace: Path) -> Profile:
    """Train `num_steps` steps under the profiler, after some to warm up; write the trace."""
    on_gpu = training.data.train.target.device.type == "cuda"
    activities = [profiler.ProfilerActivity.CPU]
    activities += [profiler.ProfilerActivity.CUDA] if on_gpu else []
    # Of its own warm-up the profiler keeps nothing.
    when = profiler.schedule(wait=0, warmup=NUM_WARM, active=num_steps, repeat=1)
    with profiler.profile(activities=activities, schedule=when) as profiling:
        training.take_steps(NUM_WARM + num_steps, lambda _: None, lambda _: profiling.step())
    trace.parent.mkdir(parents=True, exist_ok=True)
    profiling.export_chrome_trace(str(trace))
    # Of a GPU's kernels the operators that started them have the time.
    found = [event for event in profiling.key_averages() if event.device_type.name == "CPU"]
    operators = [
        Operator(
            "in Python, or waiting" if event.key == MARK else event.key,
            event.count,
            event.self_cpu_time_total / 1000 / num_steps,
            event.self_device_time_total / 1000 / num_steps,
        )
        for event in found
    ]
    marks = sum(event.cpu_time_total for event in found if event.key == MARK)
    operators.sort(key=lambda o: (o.gpu_ms, o.cpu_ms) if on_gpu else o.cpu_ms, reverse=True)
    return Profile(operators, num_steps, marks / 1000 / num_steps, on_gpu)


def show(found: Profile) -> None:
    """The operators that took longest, on one screen, and how to look at the trace."""
    table = Table("operator", title="the mean step", title_justify="left")
    for name in ("calls", "CPU ms", "share", *(["GPU ms"] if found.on_gpu else [])):
        table.add_column(name, justify="right")
    for operator in found.operators[:NUM_ROWS]:
        name = operator.name
        name = name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
        share = operator.cpu_ms / found.step_ms
        cells = [name, f"{operator.calls / found.num_steps:g}", f"{operator.cpu_ms:.3f}"]
        cells += [f"{share:.1%}", *([f"{operator.gpu_ms:.3f}"] if found.on_gpu else [])]
        table.add_row(*cells)
    Console().print(table)
    rest = len(found.operators) - NUM_ROWS
    print(f"and {rest} more" if rest > 0 else "these are all")
    print(
        f"{found.num_steps} steps of {found.step_ms:.2f} ms, the profiler's own time included; "
        "each operator without those that it calls"
    )
    print(f"open {TRACE} in chrome://tracing or at https://ui.perfetto.dev")


def main() -> None:
    """Measure, show."""
    parser = argparse.ArgumentParser(prog="python -m stages.tools.profile", description=__doc__)
    parser.add_argument("--steps", type=at_least(1), default=NUM_STEPS, metavar="N")
    num_steps = parser.parse_args().steps

    def work(params: Params) -> None:
        show(measure(as_long(prepare(params)), num_steps, TRACE))

    run_tool("profile", work)


if __name__ == "__main__":
    main()
