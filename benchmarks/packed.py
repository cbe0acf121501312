"""Trainings in a pack beside the same trainings one by one: `python -m benchmarks.packed`.

Each case trains a few members alone, with the project's own loop, and all of them as one pack, in
turns in one process with one thread; what counts are the ratios inside a turn. It is processor
time: other work on the cores moves it less than the clock. Beside each ratio stands the one that
the rule (`stages/training/packed/rule.py`) goes by. `--stages` takes the stage train as a whole:
three replicas of the digits, and eight folds of a small table, each beside one training. `--cases`,
`--members` and `--rounds` shorten it.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.train import Case, of_zoo
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.packed.loop import train_pack
from stages.training.packed.pack import Member, make_pack
from stages.training.packed.rule import Sizes, count_products, estimate
from stages.training.params import TrainParams
from stages.training.state import Data
from tests.conftest import ROOT, Project
from tests.support.samples import mixed_table, run_stages, set_params, small_project, train_params

MEMBERS = (2, 8, 32)
BATCH, STEPS = 64, 20
# Epochs of a training, and of one whose step has more products than that.
EPOCHS, FEWER, LARGE = 10, 2, 2_000_000
# So many of the members are trained alone: each takes as long as the others.
MAX_ALONE = 2


def cases() -> list[Case]:
    """Models from a step of overhead alone to one of arithmetic alone."""
    wide: dict[str, object] = {"width": 263, "layers": 1, "dropout": 0.0}
    small: dict[str, object] = {"members": 8, "width": 64, "bins": 16, "embedding": 8}
    images: dict[str, object] = {"channels": [16, 32], "width": 64, "dropout": 0.0}
    return [
        of_zoo("linear", {}, ("numeric", (64,), 10)),
        of_zoo("mlp", {"width": 64, "layers": 2, "dropout": 0.1}, ("numeric", (64,), 10)),
        of_zoo("mlp", wide, ("numeric", (510,), 363)),
        of_zoo("tabm", small, ("numeric", (8,), 2)),
        of_zoo("cnn", images, ("image", (1, 8, 8), 10)),
    ]


def make_data(case: Case) -> Data:
    """Random rows of an epoch of `STEPS` steps, and a tenth as many to validate on."""

    def split(num_rows: int, seed: int) -> TensorSource:
        random = torch.Generator().manual_seed(seed)
        rows = torch.randn(num_rows, *case.shape, generator=random)
        return TensorSource(
            {case.kind: rows}, torch.randint(case.num_outputs, (num_rows,), generator=random)
        )

    return Data(split(BATCH * STEPS, 1), split(BATCH * STEPS // 10, 2), "classification")


def recipes(number: int, epochs: int, *, alike: bool) -> list[TrainParams]:
    """The recipe of each member: the same, as of replicas, or each with a rate of its own."""
    return [
        train_params(
            epochs=epochs,
            batch_size=BATCH,
            optimizer={"name": "AdamW", "lr": 1e-3 if alike else 1e-3 * (1 + place / 50)},
            schedule={"name": "warmup_cosine"},
            clip_norm=1.0,
        )
        for place in range(number)
    ]


def measure(case: Case, number: int, epochs: int, *, alike: bool) -> tuple[float, float]:
    """The seconds of a step alone, and of a step of a pack of so many."""
    data, chosen = make_data(case), recipes(number, epochs, alike=alike)
    num_alone, num_steps = min(number, MAX_ALONE), STEPS * epochs
    began = time.process_time()
    for place in range(num_alone):
        train(case.make(), data, chosen[place], place, World(), lambda *_: None)
    alone = (time.process_time() - began) / num_alone
    began = time.process_time()
    members = [Member(case.make(), data, params, place) for place, params in enumerate(chosen)]
    train_pack(make_pack(members), lambda *_: ())
    return alone / num_steps, (time.process_time() - began) / num_steps


def compare_steps(names: str, numbers: Sequence[int], num_rounds: int, console: Console) -> None:
    """Print a row for each case and number of members."""
    title = ("case", "products, M", "members", "alone, ms", "pack, ms")
    table = Table(*title, "gain", "gain, other rates", "by the rule")
    for case in cases():
        if names not in case.name:
            continue
        batch, _ = make_data(case).train.take(slice(0, BATCH))
        products = count_products(case.make(), batch)
        epochs = FEWER if products > LARGE else EPOCHS
        for number in numbers:
            found = {
                alike: [measure(case, number, epochs, alike=alike) for _ in range(num_rounds)]
                for alike in (True, False)
            }
            gains = {k: sorted(number * a / p for a, p in each) for k, each in found.items()}
            alone, pack = (
                statistics.median(column) * 1e3 for column in zip(*found[True], strict=True)
            )
            ruled = estimate(Sizes(number, products, num_steps=1, at_once=1))
            table.add_row(
                case.name,
                f"{products / 1e6:.2f}",
                str(number),
                f"{alone:.2f}",
                f"{pack:.2f}",
                *(
                    f"{statistics.median(g):.2f} ({g[0]:.2f} to {g[-1]:.2f})"
                    for g in gains.values()
                ),
                f"{ruled['in turn'] / ruled['packed']:.2f}",
            )
    console.print(table)


def run_train(project: Project, changes: dict[str, Any]) -> tuple[float, float]:
    """The seconds of the stage train, in a process of its own: by the clock, of processor."""
    set_params(project, changes)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "stages.train"]
    subprocess.run(command, cwd=project.path, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, used


def compare_stages(num_rounds: int, console: Console) -> None:
    """Print how long the stage takes for several trainings, over what it takes for one."""
    digits = {
        "build.model": {"name": "cnn", "channels": [16, 32], "width": 64, "dropout": 0.0},
        "prepare.key": "id",
        "prepare.target": "label",
        "train.epochs": 30,
        "train.batch_size": 64,
    }
    small = {
        "build.model": {"name": "mlp", "width": 32, "layers": 2, "dropout": 0.1},
        "train.epochs": 40,
        "train.batch_size": 32,
    }
    several = [
        (
            "three replicas of the digits",
            pl.read_parquet(ROOT / "data/raw/digits.parquet"),
            digits,
            {"train.replicas": 3},
        ),
        ("eight folds of 640 rows", mixed_table(800), small, {"train.folds": 8}),
    ]
    one = {"train.replicas": 1, "train.folds": None}
    table = Table("trainings", "train.packed", "one, s", "all, s", "times one", "by processor time")
    for name, rows, changes, more in several:
        with tempfile.TemporaryDirectory() as folder:
            project = small_project(Path(folder) / "project", rows, changes)
            run_stages(project, "prepare", "build", "tune")
            run_train(project, one)
            for packed in ("auto", True, False):
                found = [
                    (run_train(project, one), run_train(project, {**more, "train.packed": packed}))
                    for _ in range(num_rounds)
                ]
                seconds = np.array(found)
                ratios = np.median(seconds[:, 1] / seconds[:, 0], axis=0)
                clock = np.median(seconds[:, :, 0], axis=0)
                table.add_row(
                    name, str(packed), *(f"{s:.1f}" for s in clock), *(f"{r:.2f}" for r in ratios)
                )
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="", help="only those whose name holds it")
    parser.add_argument("--members", type=int, nargs="+", default=MEMBERS)
    parser.add_argument("--stages", action="store_true", help="the stage train as a whole")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    console = Console(width=140)
    if options.stages:
        compare_stages(options.rounds, console)
    else:
        compare_steps(options.cases, options.members, options.rounds, console)


if __name__ == "__main__":
    main()
