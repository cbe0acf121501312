"""Does `reprise advise` name what is wrong, and do its intervals hold?

    python -m benchmarks.advise --part faults --seeds 3       six planted faults
    python -m benchmarks.advise --part intervals --cases 20   what following the advice brings
    python -m benchmarks.advise --part tuned --cases 10       nothing is wrong

The tables are drawn, so that there is fresh data without end. Part `faults`: of each problem one
thing is wrong, and the first advice has to lie on its axis. Part `intervals`: each change that was
measured is made, by fresh seeds; the mean gain on 20,000 rows that nobody has seen is what the
interval has to hold: of trainings on the rows that the advice is from, as of somebody who follows
it, and beside it of trainings on fresh rows each time, as of somebody with other rows. Part
`tuned`: nothing can be better than the recipe, so that no advice is right.

Budgets are seconds of the processor, on one thread: what else the machine does changes nothing.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import torch

import stages.tools.advise.measure.study
import stages.tools.advise.measure.trainings
from benchmarks.advice_problems import Problem, faults, tuned
from stages.common.params import read_params, read_tree
from stages.evaluate.measure.metrics import compute_metrics
from stages.evaluate.measure.predictions import Classified
from stages.features.schema import read_schema, read_statistics
from stages.model.calibration import predict_codes, to_probabilities
from stages.model.model import read_spec
from stages.tools.advise.__main__ import ALONE
from stages.tools.advise.findings import Advice
from stages.tools.advise.measure.arms import INCUMBENT, Arm, Incumbent
from stages.tools.advise.measure.judge import Estimate, Metric
from stages.tools.advise.measure.rows import read_pool
from stages.tools.advise.measure.study import At, Study
from stages.tools.advise.measure.trainings import Job, Journal, train_model
from stages.tools.advise.report import Answer, find_all
from stages.train.calibrate import calibrate_scores, score
from stages.training.data.folds import take_rows
from stages.training.data.source import TensorSource
from stages.training.recipe import BUILT, PREPARED
from stages.training.state import Data
from stages.training.step.divergence import DivergedError
from tests.support.samples import run_stages, small_project

NUM_TEST = 20_000
NUM_REPEATS = 40
GOOD: dict[str, object] = {
    "build.model": {"name": "mlp", "width": 64, "layers": 2},
    "train.epochs": 30,
    "train.batch_size": 64,
    "train.optimizer": {"name": "AdamW", "lr": 3e-3, "weight_decay": 0.01},
    "train.schedule": {"name": "CosineAnnealingLR"},
    "train.early_stopping": {"metric": "loss", "patience": 8},
    "train.loss": {"name": "CrossEntropyLoss"},
}


def measure(problem: Problem, seed: int, seconds: float) -> tuple[Study, Answer]:
    """Prepare the problem in the current folder, and ask for advice."""
    table = problem.draw(np.random.default_rng([seed, 1]), round(problem.num_rows / 0.8))
    split = {"seed": 0, "validation": 0.2, "test": 0.2}
    of_table = {"prepare.target": "target", "prepare.key": None, "prepare.split": split}
    changes = {**GOOD, **of_table, "prepare.columns": {}, "seed": seed}
    changes |= {"evaluate.metrics": [problem.metric], "evaluate.gates": {}, **problem.changes}
    project = small_project(Path.cwd() / "project", table, changes)
    os.chdir(project.path)
    with contextlib.redirect_stdout(io.StringIO()):
        run_stages(project, "prepare", "build")
        params, schema = read_params("train"), read_schema(PREPARED)
        pool = read_pool(schema, seed, torch.device("cpu"))
        tree = {**params.part("train"), **ALONE}
        metric = Metric(read_tree()["evaluate"]["metrics"][0], schema.target.task)
        incumbent = Incumbent(tree, read_spec(BUILT), pool, metric.name)
        began = time.process_time()
        study = Study(incumbent, metric, Journal(Path("journal")), seconds, began)
        return study, find_all(study, {})


def follow(problem: Problem, study: Study, arm: Arm, times: float, *, own: bool) -> np.ndarray:
    """The metric on unseen rows of trainings by fresh seeds: (repeats,).

    They learn from the problem's own rows, or from fresh ones each time, as many as the measured
    trainings had; `times`: so many times as many. Repeats of two arms are pairs: of the same rows,
    and the same seed.
    """
    pool, split = study.pool, study.splits(At(0, 1.0))[0]
    mine = take_rows(pool.rows, np.arange(pool.num_train))
    kept = take_rows(pool.rows, np.arange(pool.num_train, len(pool)))
    num_learned = len(mine) if own else len(split.learned)
    # As many as can be asked for, of which the first are learned from.
    sizes = 2 * num_learned, len(split.validated), NUM_TEST
    values = []
    for repeat in range(NUM_REPEATS // 2 if own else NUM_REPEATS):
        random = np.random.default_rng([pool.seed, 2, repeat])
        drawn, stopping, unseen = (encode(problem.draw(random, size)) for size in sizes)
        fresh = head(drawn, round(num_learned * (times - own)))
        learned = join(mine, fresh) if own else fresh
        data = replace(pool.data, train=learned, validation=kept if own else stopping)
        values.append(judge(problem, study, arm, data, unseen, 1000 + repeat))
    return np.array(values)


def head(source: TensorSource, num_rows: int) -> TensorSource:
    """The first rows."""
    batch = {kind: values[:num_rows] for kind, values in source.batch.items()}
    return TensorSource(batch, source.target[:num_rows])


def join(first: TensorSource, second: TensorSource) -> TensorSource:
    """The rows of both."""
    batch = {kind: torch.cat([first.batch[kind], second.batch[kind]]) for kind in second.batch}
    return TensorSource(batch, torch.cat([first.target, second.target]))


def judge(
    problem: Problem, study: Study, arm: Arm, data: Data, unseen: TensorSource, seed: int
) -> float:
    """The metric on unseen rows of a training of an arm, with the sign of what is better."""
    column = arm.change.column if arm.change else None
    if column is not None:
        train, validation, unseen = (
            without(source, column)
            for source in (data.train, data.validation, unseen)
            if isinstance(source, TensorSource)
        )
        data = replace(data, train=train, validation=validation)
    recipe, spec = study.incumbent.recipe(arm.overrides)
    target = unseen.target.numpy()
    try:
        model = train_model(Job("", recipe, spec, lambda: data, seed))
        known, codes = score(model, data.validation)
        scores, _ = score(model, unseen)
    except DivergedError:
        known, codes = np.zeros((len(data.validation), 2)), data.validation.target.numpy()
        scores = np.zeros((NUM_TEST, 2))
    calibration, _ = calibrate_scores(known, codes, None, recipe.calibration)
    shares = to_probabilities(scores, calibration.temperature)
    predicted = Classified(predict_codes(shares, calibration.threshold), shares)
    found = compute_metrics([problem.metric], "classification", target, predicted)
    return study.metric.sign * found[problem.metric]


def encode(table: pl.DataFrame) -> TensorSource:
    """Fresh rows as prepare has encoded those of the problem."""
    schema, statistics = read_schema(PREPARED), read_statistics(PREPARED)
    columns = [
        (table[f.name].to_numpy() - statistics.numeric[f.name].mean)
        / statistics.numeric[f.name].deviation
        for f in schema.of_kind("numeric")
    ]
    target = (table["target"] == str((schema.target.classes or [])[1])).cast(pl.Int64)
    batch = {"numeric": torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))}
    return TensorSource(batch, torch.from_numpy(target.to_numpy().copy()))


def without(source: TensorSource, column: str) -> TensorSource:
    """The rows with one column empty."""
    values = source.batch["numeric"].clone()
    values[:, read_schema(PREPARED).places()[column].all] = 0
    return replace(source, batch={"numeric": values})


def measure_faults(seeds: int, seconds: float) -> None:
    """Print for each problem and seed what stands first."""
    right = total = 0
    for number in range(6):
        for seed in range(seeds):
            problem = faults(seed)[number]
            with in_folder():
                _, answer = measure(problem, seed, seconds)
            first = answer.findings.advice[0] if answer.findings.advice else None
            hit = first is not None and first.axis == problem.axis
            right, total = right + hit, total + 1
            said = "nothing" if first is None else describe(first)
            took = f"{answer.findings.seconds:.0f} s"
            print(
                f"| {problem.name} | {seed} | {'right' if hit else 'WRONG'} | {said} | {took} |",
                flush=True,
            )
            if not hit:
                for each in answer.findings.advice:
                    print("      ", describe(each), flush=True)
    print(f"right in {right} of {total}")


def measure_intervals(cases: Sequence[int], seconds: float) -> None:
    """Print how many intervals hold what following the advice brings."""
    held, total = {True: 0, False: 0}, 0
    for case in cases:
        problems = (*(faults(100 + case)[number] for number in (1, 2, 3)), tuned(100 + case))
        problem = problems[case % len(problems)]
        problem = replace(problem, num_rows=min(problem.num_rows, 2000))
        with in_folder():
            study, answer = measure(problem, case, seconds)
            for before, arm, found, times in promises(answer):
                shown = [f"{found.gain:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"]
                for own in (True, False):
                    gain = brought(problem, study, before, arm, times, own=own)
                    holds = found.low <= gain <= found.high
                    held[own] += holds
                    errors = (gain - found.gain) / max(found.error, 1e-9)
                    rows = "own rows" if own else "fresh rows"
                    word = "holds" if holds else "MISSES"
                    shown.append(f"{rows} {gain:+.4f} {word} ({errors:+.1f} errors)")
                total += 1
                title = f"{problem.name}, {answer.findings.share:g} of the rows, {times:g} times"
                print(f"{title}, {arm.title}: {'; '.join(shown)}", flush=True)
    print(f"of {total} intervals {held[True]} hold by own rows, {held[False]} by fresh ones")


def promises(answer: Answer) -> Iterator[tuple[Arm, Arm, Estimate, float]]:
    """Each change that was measured: the recipe before and after, the gain, and times the rows."""
    for arm, found in answer.measured:
        if arm.num_draws == 1 and (not arm.change or arm.change.dropped is None):
            yield INCUMBENT, arm, found, 1.0
    if answer.curve is not None:
        yield answer.base, answer.base, answer.curve.doubled, 2.0


def brought(
    problem: Problem, study: Study, before: Arm, after: Arm, times: float, *, own: bool
) -> float:
    """The mean gain on unseen rows. Many changes are of the same recipe, which is trained once."""
    means = []
    for arm, size in ((before, 1.0), (after, times)):
        file = Path(f"{sha256(f'{arm.name} {size} {own}'.encode()).hexdigest()}.npy")
        if not file.exists():
            with contextlib.redirect_stdout(io.StringIO()):
                np.save(file, follow(problem, study, arm, size, own=own))
        means.append(np.load(file))
    return float(np.mean(means[1] - means[0]))


def measure_tuned(cases: Sequence[int], seconds: float) -> None:
    """Print in how many cases nothing is advised where nothing can be better."""
    silent = 0
    for case in cases:
        with in_folder():
            _, answer = measure(tuned(case), case, seconds)
        advice = [each for each in answer.findings.advice if each.sure]
        silent += not advice
        print(f"case {case}: {'; '.join(map(describe, advice)) or 'nothing'}", flush=True)
    print(f"nothing is advised in {silent} of {len(cases)}")


def describe(advice: Advice) -> str:
    """An advice in short."""
    interval = f"[{advice.low:+.4f}, {advice.high:+.4f}]"
    doubt = "" if advice.sure else " (not sure)"
    return f"{advice.axis}: {advice.change} {advice.gain:+.4f} {interval}{doubt}"


@contextlib.contextmanager
def in_folder() -> Iterator[None]:
    """A folder of its own to work in."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=["faults", "intervals", "tuned"], default="faults")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first of the cases")
    parser.add_argument("--budget-seconds", type=float, default=60)
    options = parser.parse_args()
    cases = range(options.first, options.first + options.cases)
    torch.set_num_threads(1)
    os.environ["REPRISE_THREADS"] = "1"
    for module in (stages.tools.advise.measure.study, stages.tools.advise.measure.trainings):
        module.time = SimpleNamespace(monotonic=time.process_time)  # type: ignore[attr-defined]
    match options.part:
        case "faults":
            measure_faults(options.seeds, options.budget_seconds)
        case "intervals":
            measure_intervals(cases, options.budget_seconds)
        case _:
            measure_tuned(cases, options.budget_seconds)


if __name__ == "__main__":
    main()
