"""Searches side by side with Optuna around a loop by hand: `python -m benchmarks.tune`.

All contenders search the same space with the same number of trials and epochs, on the digits by the
recipe `mlp`, without a pruner; round by round in turn, in one process with one thread. What a
trial costs beside its training (sampler, journal, pruner) is that of the same search in which each
training takes no time. Lightning is measured where it is installed (`pip install -e '.[bench]'`).
`--trials`, `--epochs` and `--rounds` shorten it; `--processor` counts what the process used, on a
machine with other work the steadier clock. `--quality` compares what samplers and pruners find, and
for how many epochs of training in all.
"""

import argparse
import contextlib
import importlib.util
import logging
import math
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import optuna
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pipeline.params.template import apply_recipe
from stages.common.config import Overrides
from stages.common.params import read_params
from stages.training.state import Data
from stages.tune.params import TuneParams
from stages.tune.study import search
from stages.tune.training.batch import Start, current_values, make_train_trials, read_start
from stages.tune.trials import OnEpochEnd, Search, TrialResult, best_trial
from tests.conftest import ROOT
from tests.support.samples import mixed_table, run_stages, small_project

BATCH_SIZE, CLIP = 64, 1.0
WIDTHS = (64, 128, 256)
LR = "train.optimizer.lr"
SAMPLERS = ("random", "tpe", "gp")
Run = Callable[[], object]
Clock = Callable[[], float]


def tune(start: Start, section: TuneParams, sampler: str, journal: Path) -> Search:
    """The search of the stage tune, its outputs aside."""
    train_trials, direction, _ = make_train_trials(start, in_step=False, keep_scores=False)
    params = section.model_copy(update={"sampler": sampler})
    return search(params, current_values(start), direction, start.seed, journal, train_trials)


def idle(start: Start, section: TuneParams, sampler: str, journal: Path) -> Search:
    """The same search with trainings that take no time: the better, the nearer lr is to 0.01."""

    def train_trials(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        values = [abs(math.log10(each.get(LR, 1.0)) + 2) for each in tried]
        for epoch in range(1, section.epochs + 1):
            on_epoch_end(epoch, dict(enumerate(values)))
        return [TrialResult("complete", value) for value in values]

    params = section.model_copy(update={"sampler": sampler})
    return search(params, current_values(start), "minimize", start.seed, journal, train_trials)


def by_hand(data: Data, section: TuneParams, make: Callable[[int, float], nn.Module]) -> None:
    """Optuna's study around a loop with a DataLoader, as their documentation writes it."""
    train, validation = (
        DataLoader(TensorDataset(split.batch["image"], split.target), size, shuffle=shuffle)
        for split, size, shuffle in ((data.train, BATCH_SIZE, True), (data.validation, 256, False))
    )

    def objective(trial: optuna.Trial) -> float:
        model, lr = _suggest(trial, make)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, section.epochs)
        best = float("inf")
        for epoch in range(section.epochs):
            model.train()
            for x, y in train:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model({"image": x}), y)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
            schedule.step()
            model.eval()
            with torch.inference_mode():
                losses = [
                    nn.functional.cross_entropy(model({"image": x}), y, reduction="sum")
                    for x, y in validation
                ]
            value = float(sum(losses)) / len(data.validation)
            trial.report(value, epoch)
            best = min(best, value)
        return best

    _study(objective, section)


def lightning(data: Data, section: TuneParams, make: Callable[[int, float], nn.Module]) -> None:
    """Optuna's study around Lightning's Trainer, all off that can be off."""
    import lightning as pl

    class Module(pl.LightningModule):
        def __init__(self, model: nn.Module, lr: float) -> None:
            super().__init__()
            self.model, self.lr = model, lr

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            return nn.functional.cross_entropy(self.model({"image": batch[0]}), batch[1])

        def validation_step(self, batch: list[Tensor], _: int) -> None:
            loss = nn.functional.cross_entropy(self.model({"image": batch[0]}), batch[1])
            self.log("loss", loss)

        def configure_optimizers(self) -> object:
            optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr, weight_decay=0.01)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, section.epochs)
            return [optimizer], [schedule]

    loaders = [
        DataLoader(TensorDataset(split.batch["image"], split.target), size, shuffle=shuffle)
        for split, size, shuffle in ((data.train, BATCH_SIZE, True), (data.validation, 256, False))
    ]

    def objective(trial: optuna.Trial) -> float:
        trainer = pl.Trainer(
            max_epochs=section.epochs,
            accelerator="cpu",
            devices=1,
            gradient_clip_val=CLIP,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
        )
        trainer.fit(Module(*_suggest(trial, make)), *loaders)
        return float(trainer.callback_metrics["loss"])

    _study(objective, section)


def _suggest(
    trial: optuna.Trial, make: Callable[[int, float], nn.Module]
) -> tuple[nn.Module, float]:
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    width = trial.suggest_categorical("width", WIDTHS)
    return make(width, trial.suggest_float("dropout", 0.0, 0.5)), lr


def _study(objective: Callable[[optuna.Trial], float], section: TuneParams) -> None:
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=section.trials)


def measure(num_trials: int, epochs: int, rounds: int, batch: int, clock: Clock) -> None:
    """Time the contenders in turn, print their trials a second and what a trial costs beside."""
    from stages.model.model import make_model

    start = read_start(read_params("tune"), epochs)
    section = read_params("tune").section("tune", TuneParams)
    changes = {"trials": num_trials, "epochs": epochs, "pruner": "none", "batch": batch}
    section = section.model_copy(update=changes)
    _, _, data = make_train_trials(start, in_step=False, keep_scores=False)

    def make(width: int, dropout: float) -> nn.Module:
        arguments = {**start.spec.arguments, "width": width, "dropout": dropout}
        return make_model(start.spec.model_copy(update={"arguments": arguments}), 0)

    contenders: dict[str, Run] = {"by hand": lambda: by_hand(data, section, make)}
    if importlib.util.find_spec("lightning"):
        contenders["lightning"] = lambda: lightning(data, section, make)
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            _time(name, run, seconds, clock)
        for sampler in SAMPLERS:
            for kind, run in (("tune", tune), ("idle", idle)):
                journal = Path(f"{number}-{kind}-{sampler}.journal")
                given = (start, section, sampler, journal)
                _time(f"{kind}, {sampler}", partial(run, *given), seconds, clock)
        if number == 0:
            seconds.clear()  # the first round imports and compiles
    _show(seconds, num_trials)


def compare(rounds: int) -> None:
    """Print the best value that each kind of search finds, and its epochs, for some seeds."""
    epochs = 27
    start = read_start(read_params("tune"), epochs)
    section = read_params("tune").section("tune", TuneParams)
    few, many = {"trials": 27, "batch": 8}, {"trials": 54, "batch": 27}
    kinds: dict[str, dict[str, object]] = {
        "27 trials, random": {**few, "sampler": "random", "pruner": "none"},
        "27 trials, tpe": {**few, "sampler": "tpe", "pruner": "none"},
        "27 trials, tpe, median": {**few, "sampler": "tpe", "pruner": "median"},
        "54 trials, random, halving": {**many, "sampler": "random", "pruner": "halving"},
        "54 trials, tpe, halving": {**many, "sampler": "tpe", "pruner": "halving"},
    }
    table = Table("search", "best validation loss, by seed", "epochs in all")
    for name, changes in kinds.items():
        params = section.model_copy(update={"epochs": epochs, **changes})
        in_step = params.pruner == "halving"
        train_trials, direction, _ = make_train_trials(start, in_step=in_step, keep_scores=False)
        values, work = [], []
        for seed in range(rounds):
            journal = Path(f"{name}-{seed}.journal")
            with contextlib.redirect_stdout(None):
                found = search(
                    params, current_values(start), direction, seed, journal, train_trials
                )
            values.append(f"{best_trial(found).value:.4f}")
            work.append(sum(len(trial.values) for trial in found.trials))
        table.add_row(name, ", ".join(values), f"{statistics.mean(work):.0f}")
    Console(width=110).print(table)


def _time(name: str, run: Run, seconds: dict[str, list[float]], clock: Clock) -> None:
    began = clock()
    with contextlib.redirect_stdout(None):
        run()
    seconds.setdefault(name, []).append(clock() - began)


def _show(seconds: dict[str, list[float]], num_trials: int) -> None:
    table = Table("contender", "trials/s", "times by hand", "ms a trial beside its training")
    for name, taken in seconds.items():
        if name.startswith("idle"):
            continue
        ratios = [hand / own for hand, own in zip(seconds["by hand"], taken, strict=True)]
        idle_seconds = seconds.get(name.replace("tune", "idle"), []) if "tune" in name else []
        beside = _spread([1000 * s / num_trials for s in idle_seconds]) if idle_seconds else ""
        rate = num_trials / statistics.median(taken)
        table.add_row(name, f"{rate:.2f}", _spread(ratios), beside)
    Console(width=110).print(table)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Prepare the digits in a folder of their own, and measure there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="of the search: what can be packed")
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--quality", action="store_true")
    given = parser.parse_args()
    os.environ["REPRISE_THREADS"] = "1"
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        project = small_project(Path(folder) / "project", mixed_table(), {})
        for name in ("digits.parquet", "digits.expectations.yaml"):
            (project.path / "data/raw" / name).write_bytes((ROOT / "data/raw" / name).read_bytes())
        recipe = apply_recipe(ROOT / "docs/recipes/mlp.yaml")
        (project.path / "params.yaml").write_text(recipe, encoding="utf-8")
        run_stages(project, "prepare", "build")
        os.chdir(project.path)
        clock = time.process_time if given.processor else time.perf_counter
        if given.quality:
            compare(given.rounds)
        else:
            measure(given.trials, given.epochs, given.rounds, given.batch, clock)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
