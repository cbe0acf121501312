"""Searches side by side with Optuna around a loop by hand: `python -m benchmarks.tune`.

All contenders search the same space with the same number of trials and epochs, without a pruner;
round by round in turn, in one process, by the clock, with all cores. By hand is Optuna's study
around a loop with a `DataLoader`, on one thread or on all, whichever was faster in four
trials; Lightning (`pip install -e '.[bench]'`) the same around its `Trainer` with
Optuna's callback for pruning. What a trial costs beside its training (sampler, journal, pruner) is
that of the same search in which each training takes no time. A round has a seed of its own; the
best losses are compared within it.

`--model` takes `mlp` and `cnn` on the digits, by their recipes, or `tabm` on a table of 5,000 rows;
`--batch`, `--samplers`, `--trials`, `--epochs` and `--rounds` are those of the searches.
`--processor` counts what one process with one thread uses, on a machine with other work the
steadier clock. `--quality` compares what samplers and pruners find, and for how many epochs of
training in all.
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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks.by_hand import Case, by_hand, lightning
from pipeline.params.template import apply_recipe
from stages.common.config import Overrides
from stages.common.params import read_params
from stages.tune.params import TuneParams
from stages.tune.study import search
from stages.tune.training.batch import current_values, make_train_trials, read_start
from stages.tune.trials import OnEpochEnd, TrialResult, best_trial
from tests.conftest import ROOT, Project
from tests.support.samples import mixed_table, run_stages, set_params, small_project

# Trials by which the threads of the loop by hand are chosen.
FEW = 4
LR = "train.optimizer.lr"
TABM: dict[str, Any] = {
    "prepare.key": None,
    "build.model": {"name": "tabm", "members": 8, "width": 64, "bins": 16, "embedding": 8},
    "train.loss": {"name": "MSELoss"},
    "train.batch_size": 256,
    "train.class_weights": None,
    "tune.space": {
        LR: {"low": 1e-4, "high": 1e-1, "log": True},
        "build.model.width": [32, 64, 128],
        "build.model.dropout": {"low": 0.0, "high": 0.5},
    },
}
# What a search has found, and a function that searches with the seed that it is given.
Run = Callable[[int], float]


def tune(case: Case, sampler: str, journal: str, seed: int) -> float:
    """The search of the stage tune, its outputs aside."""
    train_trials, direction, _ = make_train_trials(case.start, in_step=False, keep_scores=False)
    params = case.section.model_copy(update={"sampler": sampler})
    path = Path(f"{journal}-{sampler}-{seed}.journal")
    found = search(params, current_values(case.start), direction, seed, path, train_trials)
    return float(best_trial(found).value or 0.0)


def idle(case: Case, sampler: str, journal: str, seed: int) -> float:
    """The same search with trainings that take no time: the better, the nearer lr is to 0.01."""

    def train_trials(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
        values = [abs(math.log10(each.get(LR, 1.0)) + 2) for each in tried]
        for epoch in range(1, case.section.epochs + 1):
            on_epoch_end(epoch, dict(enumerate(values)))
        return [TrialResult("complete", value) for value in values]

    params = case.section.model_copy(update={"sampler": sampler})
    path = Path(f"{journal}-{sampler}-{seed}.journal")
    search(params, current_values(case.start), "minimize", seed, path, train_trials)
    return math.nan


def measure(case: Case, samplers: Sequence[str], rounds: int, *, processor: bool) -> None:
    """Time the contenders in turn, print their trials a second and what a trial costs beside."""
    clock = time.process_time if processor else time.perf_counter
    cores = [1] if processor else sorted({1, len(os.sched_getaffinity(0))})
    seconds: dict[str, list[float]] = {}
    best: dict[str, list[float]] = {}
    few = replace(case, section=case.section.model_copy(update={"trials": FEW}))
    for threads in cores:
        _time(str(threads), partial(by_hand, few, threads), 0, clock, seconds, best)
    threads = min(cores, key=lambda number: seconds[str(number)][0])
    hand = f"by hand, {threads} thread{'s' * (threads > 1)}"
    contenders: dict[str, Run] = {hand: partial(by_hand, case, threads)}
    if importlib.util.find_spec("lightning"):
        contenders["lightning"] = partial(lightning, case, threads)
    for sampler in samplers:
        contenders[f"tune, {sampler}"] = partial(tune, case, sampler, "tune")
        contenders[f"idle, {sampler}"] = partial(idle, case, sampler, "idle")
    for number in range(rounds + 1):
        if number <= 1:
            seconds, best = {}, {}  # the first round imports
        for name, run in contenders.items():
            _time(name, run, number, clock, seconds, best)
    _show(hand, seconds, best, case.section.trials)


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


def _time(
    name: str,
    run: Run,
    seed: int,
    clock: Callable[[], float],
    seconds: dict[str, list[float]],
    best: dict[str, list[float]],
) -> None:
    began = clock()
    with contextlib.redirect_stdout(None):
        found = run(seed)
    seconds.setdefault(name, []).append(clock() - began)
    best.setdefault(name, []).append(found)


def _show(
    hand: str, seconds: dict[str, list[float]], best: dict[str, list[float]], num_trials: int
) -> None:
    title = ("contender", "trials/s", f"times {hand}", "ms beside a training")
    table = Table(*title, "best loss", "less that by hand, in a round")
    for name, taken in seconds.items():
        if name.startswith("idle"):
            continue
        ratios = [one / own for one, own in zip(seconds[hand], taken, strict=True)]
        idle_seconds = seconds.get(name.replace("tune", "idle"), []) if "tune" in name else []
        beside = _spread([1000 * s / num_trials for s in idle_seconds]) if idle_seconds else ""
        rate = num_trials / statistics.median(taken)
        more = [own - one for own, one in zip(best[name], best[hand], strict=True)]
        loss = f"{statistics.median(best[name]):.4f}"
        table.add_row(name, f"{rate:.2f}", _spread(ratios), beside, loss, _spread(more, "+.4f"))
    Console(width=140).print(table)


def _spread(values: list[float], form: str = ".2f") -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):{form}} ({low:{form}} to {high:{form}})"


def prepare(model: str, folder: Path) -> Project:
    """A project in `folder` in which the stages before tune have run."""
    random = np.random.default_rng(0)
    columns = random.normal(size=(5000, 8))
    table = pl.DataFrame(columns, schema=[f"x{n}" for n in range(8)])
    wave = np.sin(2 * columns[:, 0]) * columns[:, 1] + np.abs(columns[:, 2])
    table = table.with_columns(y=wave + 0.1 * random.normal(size=5000))
    changes = TABM if model == "tabm" else {}
    project = small_project(folder, table if model == "tabm" else mixed_table(), changes)
    if model != "tabm":
        for name in ("digits.parquet", "digits.expectations.yaml"):
            file = ROOT / "data/raw" / name
            (project.path / "data/raw" / name).write_bytes(file.read_bytes())
        recipe = apply_recipe(ROOT / f"docs/recipes/{model}.yaml")
        (project.path / "params.yaml").write_text(recipe, encoding="utf-8")
    set_params(project, {"tune.pruner": "none", "tune.portfolio": False})
    run_stages(project, "prepare", "build")
    return project


def main() -> None:
    """Prepare the data in a folder of their own, and measure there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("mlp", "cnn", "tabm"), default="mlp")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16, help="trials that are asked for at once")
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--quality", action="store_true")
    given = parser.parse_args()
    if given.processor:
        os.environ.update(REPRISE_THREADS="1", REPRISE_AT_ONCE="1")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(prepare(given.model, Path(folder) / "project").path)
        if given.quality:
            compare(given.rounds)
        else:
            section = read_params("tune").section("tune", TuneParams)
            changes = {"trials": given.trials, "epochs": given.epochs, "batch": given.batch}
            start = read_start(read_params("tune"), given.epochs)
            _, _, data = make_train_trials(start, in_step=False, keep_scores=False)
            case = Case(start, data, section.model_copy(update=changes))
            measure(case, given.samplers, given.rounds, processor=given.processor)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
