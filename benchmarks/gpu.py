"""How much of a GPU a training uses: `python -m benchmarks.gpu` (`--tiny`: on any device).

A ResNet-50 and a transformer of 100 million weights on synthetic batches that lie on the device,
by the project's loop and by a plain one in the same precision and layout, in turns. Model-flop
utilisation: the operations of forward and backward pass, as torch counts them, over the time of a
step and over what the device could do (`--peak`, or by its name).

There are no figures from a GPU yet; on a CPU it runs through (`--tiny`). The small cases of
`benchmarks.train` are measured there by its `--device`.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.big_models import ResNet, Transformer
from benchmarks.contenders import CLIP, LEARNING_RATE
from benchmarks.train import make_params
from stages.tensors.batch import Batch, take
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.device.environment import compute_deterministically
from stages.training.device.memory_format import (
    choose_memory_format,
    put_channels_last,
    with_channels_last,
)
from stages.training.device.precision import casting, choose_precision
from stages.training.loop import train
from stages.training.params import TrainParams
from stages.training.state import Data, State

# Dense operations a second of a device whose name holds the key: in half precision, in fp32.
PEAKS = {
    "H200": (989e12, 67e12),
    "H100 PCIe": (756e12, 51e12),
    "H100": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "L4": (121e12, 30.3e12),
    "A10": (125e12, 31.2e12),
    "V100": (125e12, 15.7e12),
    "T4": (65e12, 8.1e12),
    "RTX 4090": (165e12, 82.6e12),
}
EPOCHS = 2


@dataclass(frozen=True)
class Case:
    """A model, its rows, and how many of them make a step."""

    name: str
    make: Callable[[], nn.Module]
    draw: Callable[[int], Batch]
    num_classes: int
    batch_size: int
    num_steps: int


# Trains and returns the seconds of a step.
Contender = Callable[[nn.Module, Data, TrainParams, Case], float]


def cases(*, tiny: bool) -> list[Case]:
    """The two, or small ones of the same kind that only show that all of this runs."""
    side, length, words, classes = (32, 16, 50, 10) if tiny else (224, 512, 20_000, 1000)
    blocks, width = ((1, 1), 8) if tiny else ((3, 4, 6, 3), 64)
    layers, wide, heads = (2, 32, 2) if tiny else (12, 768, 12)
    steps = 4 if tiny else 30
    return [
        Case(
            "ResNet-50" if not tiny else "ResNet, tiny",
            lambda: ResNet(blocks, width, classes),
            lambda num_rows: {"image": torch.randn(num_rows, 3, side, side)},
            classes,
            8 if tiny else 256,
            steps,
        ),
        Case(
            "transformer" if not tiny else "transformer, tiny",
            lambda: Transformer(layers, wide, heads, words, length, classes),
            lambda num_rows: {"categorical": torch.randint(words, (num_rows, length))},
            classes,
            8 if tiny else 64,
            steps,
        ),
    ]


def make_data(case: Case, device: torch.device) -> Data:
    """Random rows on the device; next to none to validate on."""

    def split(num_rows: int) -> TensorSource:
        batch = {kind: values.to(device) for kind, values in case.draw(num_rows).items()}
        return TensorSource(batch, torch.randint(case.num_classes, (num_rows,)).to(device))

    torch.manual_seed(0)
    return Data(split(case.num_steps * case.batch_size), split(8), "classification")


class Stopwatch:
    """Seconds of the steps of an epoch after its first; it waits for the device twice an epoch."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device = case, device
        self.began, self.seconds = 0.0, 0.0

    def after(self, number: int) -> None:
        """To be called after each step of an epoch, the first of which has the number 1."""
        if number in (1, self.case.num_steps):
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            now = time.perf_counter()
            if number == 1:
                self.began = now
            else:
                self.seconds = (now - self.began) / (self.case.num_steps - 1)


def by_hand(model: nn.Module, data: Data, params: TrainParams, case: Case) -> float:
    """A plain loop: the same precision, layout, optimizer and clipping; nothing is looked at."""
    torch.use_deterministic_algorithms(mode=False)
    (kind, x), y = next(iter(data.train.take(slice(None))[0].items())), data.train.target
    precision = choose_precision(params.precision, y.device)
    cast = casting(precision, y.device)
    last, _ = choose_memory_format(params.channels_last, precision, y.device, {kind: x[:1]})
    if last:
        put_channels_last(model)
    lay_out = with_channels_last(None) if last else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    weights, loss_of = list(model.parameters()), nn.CrossEntropyLoss()
    watch = Stopwatch(case, y.device)
    model.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(y)).to(y.device).split(params.batch_size)
        for number, rows in enumerate(order, start=1):
            batch = {kind: x[rows]}
            with cast:
                scores = model(batch if lay_out is None else lay_out(batch))
            optimizer.zero_grad()
            loss_of(scores.float(), y[rows]).backward()
            nn.utils.clip_grad_norm_(weights, CLIP)
            optimizer.step()
            watch.after(number)
    return watch.seconds


def reprise(
    model: nn.Module,
    data: Data,
    params: TrainParams,
    case: Case,
    *,
    compiled: bool = False,
    deterministic: bool = True,
) -> float:
    """The project's loop."""
    params = params.model_copy(update={"compile": compiled, "deterministic": deterministic})
    compute_deterministically(deterministic=deterministic)
    watch = Stopwatch(case, data.train.target.device)

    def save(state: State) -> None:
        # After an epoch it is called once more, with the sums of the next.
        if state.totals.num_steps:
            watch.after(state.totals.num_steps)

    train(model, data, params, 0, World(), lambda *_: None, on_step_end=save)
    return watch.seconds


CONTENDERS: dict[str, Contender] = {
    "by hand": by_hand,
    "reprise": reprise,
    "reprise, not deterministic": partial(reprise, deterministic=False),
    "reprise, compiled": partial(reprise, compiled=True),
}


def count_operations(model: nn.Module, data: Data, case: Case) -> int:
    """Operations of a step's forward and backward pass: two for each product and its sum."""
    model = copy.deepcopy(model)
    batch, target = data.train.take(slice(0, 1))
    with FlopCounterMode(display=False) as counted:
        nn.functional.cross_entropy(model.eval()(take(batch, slice(0, 1))), target).backward()
    return int(counted.get_total_flops()) * case.batch_size


def peak_of(device: torch.device, precision: str) -> float | None:
    """Operations a second that the device could do; None: its name is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    half = precision != "fp32"
    return next((peaks[not half] for key, peaks in PEAKS.items() if key in name), None)


def main() -> None:
    """Measure and print a row for each case and contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--peak", type=float, help="of the device, in 1e12 operations a second")
    options = parser.parse_args()
    device = torch.device(options.device)
    precision = choose_precision(options.precision, device)
    peak = peak_of(device, precision) if options.peak is None else 1e12 * options.peak
    table = Table(
        "case", "weights", "loop", "ms a step", "÷ by hand", "1e12 a second", "MFU", "MiB"
    )
    for case in cases(tiny=options.tiny):
        data, start = make_data(case, device), case.make().to(device)
        update = {"epochs": EPOCHS, "precision": precision}
        params = make_params(data, case.batch_size).model_copy(update=update)
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        memory = dict.fromkeys(CONTENDERS, 0)
        for _ in range(options.rounds):
            for name, contender in CONTENDERS.items():
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                seconds[name].append(contender(copy.deepcopy(start), data, params, case))
                if device.type == "cuda":
                    memory[name] = torch.cuda.max_memory_allocated() // 2**20
        operations = count_operations(start, data, case)
        num_weights = f"{sum(w.numel() for w in start.parameters()) / 1e6:.1f} M"
        for name, found in seconds.items():
            ratios = [a / b for a, b in zip(found, seconds["by hand"], strict=True)]
            rate = operations / statistics.median(found)
            table.add_row(
                case.name,
                num_weights,
                name,
                f"{1000 * statistics.median(found):.1f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{rate / 1e12:.3g}",
                "peak unknown" if peak is None else f"{rate / peak:.0%}",
                str(memory[name] or "–"),
            )
    print(f"{options.device}, {precision}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
