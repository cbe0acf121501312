"""Training side by side with a loop by hand and with other libraries: `python -m benchmarks.train`.

All contenders train the same model from the same weights with the same optimizer, clipping,
schedule, finite check and validation; round by round in turn, in one process with one thread. What
counts are the ratios inside a round. Peers are measured where they are installed
(`pip install -e '.[bench]'`). `--cases`, `--batch` and `--rounds` shorten it; `--processor` counts
what the process used, on a machine with other work the steadier clock. Memory and the time to the
first step: `benchmarks.process`; a GPU: `benchmarks.gpu`.
"""

import argparse
import copy
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.contenders import CLIP, LEARNING_RATE, contenders
from stages.model.model import ModelSpec, make_model
from stages.tensors.batch import Batch
from stages.training.data.source import TensorSource
from stages.training.params import TrainParams
from stages.training.state import Data
from tests.support.samples import train_params

STEPS_PER_EPOCH = 200
EPOCHS = 3
BATCH_SIZES = (256, 32)


class Transformer(nn.Module):
    """Two encoder layers of width 64 over sixteen steps of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.output = nn.Linear(64, 10)

    def forward(self, batch: Batch) -> Tensor:
        """Scores (rows, 10) of `numeric` (rows, 16 x 64)."""
        sequence = batch["numeric"].unflatten(1, (16, 64))
        scores: Tensor = self.output(self.encoder(sequence).mean(dim=1))
        return scores


@dataclass(frozen=True)
class Case:
    """A model, what goes in, and how many classes come out (1: a value)."""

    name: str
    make: Callable[[], nn.Module]
    kind: str
    shape: tuple[int, ...]
    num_outputs: int


def of_zoo(name: str, arguments: dict[str, object], case: tuple[str, tuple[int, ...], int]) -> Case:
    """A case whose model is one of the zoo's."""
    kind, shape, num_outputs = case
    title = f"{name} {'×'.join(map(str, shape))} → {num_outputs}"
    spec = ModelSpec(
        name=name, arguments=arguments, inputs={kind: list(shape)}, num_outputs=num_outputs
    )
    return Case(title, lambda: make_model(spec, 0), kind, shape, num_outputs)


def cases() -> list[Case]:
    """From a step of a quarter of a millisecond to some milliseconds."""
    wide: dict[str, object] = {"width": 263, "layers": 1, "dropout": 0.0}
    return [
        of_zoo("linear", {}, ("numeric", (8,), 1)),
        of_zoo("mlp", {"width": 64, "layers": 2, "dropout": 0.0}, ("numeric", (8,), 1)),
        of_zoo("mlp", wide, ("numeric", (510,), 363)),
        of_zoo(
            "cnn",
            {"channels": [16, 32], "width": 64, "dropout": 0.0},
            ("image", (1, 8, 8), 10),
        ),
        of_zoo("tabm", {}, ("numeric", (8,), 1)),
        Case("transformer 16×64 → 10", Transformer, "numeric", (16 * 64,), 10),
    ]


def make_data(case: Case, batch_size: int, device: str = "cpu") -> Data:
    """Random rows, as many as make an epoch of `STEPS_PER_EPOCH` steps; a tenth to validate on."""

    def split(num_rows: int, seed: int) -> TensorSource:
        random = torch.Generator().manual_seed(seed)
        features = torch.randn(num_rows, *case.shape, generator=random)
        if case.num_outputs == 1:
            target = torch.randn(num_rows, generator=random)
        else:
            target = torch.randint(case.num_outputs, (num_rows,), generator=random)
        return TensorSource({case.kind: features.to(device)}, target.to(device))

    num_rows = STEPS_PER_EPOCH * batch_size
    task = "regression" if case.num_outputs == 1 else "classification"
    return Data(split(num_rows, 0), split(num_rows // 10, 1), task)


def make_params(data: Data, batch_size: int) -> TrainParams:
    """The recipe of all contenders."""
    loss = "MSELoss" if data.task == "regression" else "CrossEntropyLoss"
    return train_params(
        epochs=EPOCHS,
        batch_size=batch_size,
        loss={"name": loss},
        optimizer={"name": "AdamW", "lr": LEARNING_RATE},
        schedule={"name": "CosineAnnealingLR"},
        clip_norm=CLIP,
        precision="fp32",
    )


def main() -> None:
    """Measure and print a row for each case and batch size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default="", help="only those whose name holds it")
    parser.add_argument("--batch", type=int, choices=BATCH_SIZES, help="only this one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processor", action="store_true", help="its time, not the clock's")
    options = parser.parse_args()
    now = time.process_time if options.processor else time.perf_counter
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = contenders()
    table = Table("case", "batch", "by hand, ms a step", *[f"{n} ÷ by hand" for n in found][1:])
    for case in cases():
        sizes = [options.batch] if options.batch else BATCH_SIZES
        for batch_size in sizes if options.cases in case.name else ():
            data = make_data(case, batch_size, options.device)
            params = make_params(data, batch_size)
            start = case.make().to(options.device)
            seconds: dict[str, list[float]] = {name: [] for name in found}
            for number in range(options.rounds + 1):
                for name, contender in found.items():
                    model = copy.deepcopy(start)
                    if name != "reprise" and hasattr(model, "fit"):
                        model.fit(data.train.batch, data.train.target)
                    began = now()
                    contender(model, data, params)
                    if options.device.startswith("cuda"):
                        torch.cuda.synchronize()
                    # The first round warms up.
                    if number:
                        seconds[name].append(now() - began)
            hand = seconds["by hand"]
            milliseconds = 1000 * statistics.median(hand) / (EPOCHS * STEPS_PER_EPOCH)
            ratios = [_ratio(seconds[name], hand) for name in list(found)[1:]]
            table.add_row(case.name, str(batch_size), f"{milliseconds:.2f}", *ratios)
    Console(width=160).print(table)


def _ratio(these: list[float], hand: list[float]) -> str:
    """The median over rounds, and the smallest and largest."""
    ratios = sorted(a / b for a, b in zip(these, hand, strict=True))
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
