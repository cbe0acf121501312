"""How often the report's verdicts are wrong, and how often they find what is there.

    python -m benchmarks.honesty                                  # the bundled tables
    python -m benchmarks.honesty --table adult.csv --target class --rows 2000

Real trainings by the project's own loop, three replicas a side, test rows drawn anew for each pair:

- false alarms: pairs that differ in the seed alone. The share of 'this change' verdicts that say
  better or worse (bar: 5 % within the binomial interval), beside that of 'this model on these
  rows', which knows nothing of the seed;
- power: pairs whose second side is trained on fewer rows, as many fewer as a test of this size
  finds in 80 % of cases by Student's non-central distribution. The share that is found.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.stats import binomtest, nct, t

from benchmarks.trainings import Case, Job, Pool, prepare, start, train_all
from stages.compare.compare import mark
from stages.compare.mean_difference import MIN_REPLICAS, find_mean_differences
from stages.evaluate.measure.bootstrap import paired_differences
from stages.evaluate.measure.metrics import compute_metrics, less_is_better
from stages.evaluate.measure.weighted_metrics import Floats
from tests.conftest import ROOT

METRICS = {
    "classification": ["accuracy", "log_loss", "roc_auc", "f1_macro"],
    "regression": ["rmse", "mae", "r2"],
}
POWER = 0.8
LEVEL = 0.95
# Of the train rows, in the trainings that look for the difference of the right size.
SHARES = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.35, 0.2)
NUM_PILOT, NUM_FULL, NUM_DRAWS = 50, 200, 300


def main() -> None:
    """Measure each case and print its tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--table", type=Path, help="CSV or Parquet; else the bundled tables")
    parser.add_argument("--target")
    parser.add_argument("--rows", type=int, default=2000, help="test rows of a pair")
    asked = parser.parse_args()
    cases = bundled()
    if asked.table is not None:
        mlp = {"name": "mlp", "width": 32}
        changes = {"build.model": mlp, "train.epochs": 3, "train.batch_size": 256}
        cases = [Case(asked.table.stem, asked.table, asked.target, changes, asked.rows)]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            measure(case, Path(folder), asked.pairs)


def bundled() -> list[Case]:
    """Cases on the project's own tables."""
    raw = ROOT / "data/raw"
    digits = {"build.model": {"name": "mlp", "width": 32}, "train.epochs": 6}
    disease = {"build.model": {"name": "mlp", "width": 16}, "train.epochs": 20}
    return [
        Case("digits", raw / "digits.parquet", "label", digits, 340),
        Case("diabetes", raw / "diabetes.parquet", "progression", disease, 150),
    ]


def measure(case: Case, folder: Path, num_pairs: int) -> None:
    """Both shares for one case."""
    prepare(case, folder)
    base = [(seed, 1.0) for seed in range(2 * MIN_REPLICAS * num_pairs)]
    spawn = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, start, (folder,)) as workers:
        pilot = [(10**6 + seed, share) for share in SHARES for seed in range(NUM_PILOT)]
        pool = train_all(workers, [*base, *pilot])
        names = METRICS[pool.task]
        null = verdicts(workers, case, pool, split(base))
        share = find_share(pool, case.num_rows, names[0], spread(null, names[0])[1])
        worse = [(2 * 10**6 + k, share) for k in range(MIN_REPLICAS * num_pairs)]
        pool.predicted.update(train_all(workers, worse).predicted)
        firsts = [before for before, _ in split(base)]
        sides = [worse[i : i + MIN_REPLICAS] for i in range(0, len(worse), MIN_REPLICAS)]
        real = verdicts(workers, case, pool, list(zip(firsts, sides, strict=True)))
    print(f"\n### {case.name}: {case.num_rows} test rows, {num_pairs} pairs\n")
    print("| metric | this change, seeds alone | this model on these rows, seeds alone | ", end="")
    print(f"trained on {share:.0%} of the rows | expected |\n|---|---|---|---|---|")
    for name in names:
        alarms, by_rows = (share_of([v[name][k] for v in null]) for k in ("change", "model"))
        found = share_of([v[name]["right"] for v in real])
        expected = power(true_difference(pool, worse, name), spread(real, name))
        print(f"| {name} | {alarms} | {by_rows} | {found} | {expected:.0%} |")


def split(jobs: Sequence[Job]) -> list[tuple[list[Job], list[Job]]]:
    """Pairs of sides of three, no training in two of them."""
    step = 2 * MIN_REPLICAS
    groups = (list(jobs[i : i + step]) for i in range(0, len(jobs), step))
    return [(group[:MIN_REPLICAS], group[MIN_REPLICAS:]) for group in groups]


def verdicts(
    workers: ProcessPoolExecutor,
    case: Case,
    pool: Pool,
    pairs: Sequence[tuple[Sequence[Job], Sequence[Job]]],
) -> list[dict[str, dict[str, float]]]:
    """What both statements say of each pair, on rows drawn with replacement from the pool.

    So drawn, rows come from a population that is known: its truth is the pool's.
    """
    return list(workers.map(partial(judge_pair, pool.task, pool.target), inputs(case, pool, pairs)))


def inputs(
    case: Case, pool: Pool, pairs: Sequence[tuple[Sequence[Job], Sequence[Job]]]
) -> Iterator[tuple[np.ndarray, list[Floats], list[Floats]]]:
    """Rows of each pair, and what both sides predict of them."""
    for number, (before, after) in enumerate(pairs):
        random = np.random.default_rng([number, len(pool.predicted)])
        rows = random.integers(len(pool.target), size=case.num_rows)
        yield rows, *([pool.predicted[job][rows] for job in side] for side in (before, after))


def judge_pair(
    task: str, target: np.ndarray, pair: tuple[np.ndarray, list[Floats], list[Floats]]
) -> dict[str, dict[str, float]]:
    """By metric: whether each statement sees a difference, the difference and its degrees."""
    rows, before, after = pair
    names = METRICS[task]
    changes = find_mean_differences(names, task, target[rows], before, after)
    models = paired_differences(names, task, target[rows], before[0], after[0])
    return {
        name: {
            "change": mark(name, changes[name]) != "noise",
            "model": mark(name, models[name]) != "noise",
            "right": mark(name, changes[name]) == "worse",
            "value": changes[name].value,
            "degrees": changes[name].degrees or np.inf,
        }
        for name in names
    }


def spread(found: Sequence[dict[str, dict[str, float]]], name: str) -> tuple[float, float]:
    """The true standard error of a change, as pairs scatter, and the usual degrees of freedom."""
    values, degrees = ([each[name][key] for each in found] for key in ("value", "degrees"))
    return float(np.std(values, ddof=1)), float(np.median(degrees))


def power(difference: float, error: tuple[float, float]) -> float:
    """How often Student's test finds a true difference."""
    deviation, degrees = error
    degrees = min(degrees, 1e6)
    bound = t.ppf((1 + LEVEL) / 2, degrees)
    return float(nct.sf(bound, degrees, abs(difference) / deviation))


def true_difference(pool: Pool, jobs: Sequence[Job], name: str) -> float:
    """How much worse trainings are on the whole pool, in the mean, than those on all rows."""
    sign = 1 if less_is_better(name) else -1
    difference = on_pool(pool, jobs, name).mean() - on_pool(pool, full_jobs(pool), name).mean()
    return max(0.0, sign * float(difference))


def full_jobs(pool: Pool) -> list[Job]:
    """Trainings on all rows, as many as tell their mean well."""
    return [job for job in pool.predicted if job[1] == 1][:NUM_FULL]


def on_pool(pool: Pool, jobs: Sequence[Job], name: str) -> Floats:
    """A metric of each training on the whole pool: (trainings,)."""
    sides = (pool.predicted[job] for job in jobs)
    found = [compute_metrics([name], pool.task, pool.target, side)[name] for side in sides]
    return np.array(found)


def find_share(pool: Pool, num_rows: int, name: str, degrees: float) -> float:
    """The share of the train rows without which the metric is worse by what has the power asked."""
    found = [0.0]
    for share in SHARES:
        jobs = [job for job in pool.predicted if job[1] == share]
        error = (scatter(pool, jobs, num_rows, name), degrees)
        found.append(power(true_difference(pool, jobs, name), error))
    increasing = np.maximum.accumulate(found)
    return float(np.interp(POWER, increasing, (1.0, *SHARES)))


def scatter(pool: Pool, jobs: Sequence[Job], num_rows: int, name: str) -> float:
    """The standard error of the change from all rows to these trainings, over seeds and rows."""
    random = np.random.default_rng(0)
    differences = []
    for _ in range(NUM_DRAWS):
        rows = random.integers(len(pool.target), size=num_rows)
        means = []
        for side in (full_jobs(pool), jobs):
            chosen = [side[k] for k in random.choice(len(side), MIN_REPLICAS, replace=False)]
            predicted = (pool.predicted[job][rows] for job in chosen)
            values = [compute_metrics([name], pool.task, pool.target[rows], p) for p in predicted]
            means.append(np.mean([value[name] for value in values]))
        differences.append(means[1] - means[0])
    return float(np.std(differences, ddof=1))


def share_of(said: Sequence[float]) -> str:
    """A share with its exact binomial interval (Clopper and Pearson)."""
    count = sum(map(bool, said))
    ends = binomtest(count, len(said)).proportion_ci(LEVEL)
    return f"{count / len(said):.1%} ({ends.low:.1%} to {ends.high:.1%})"


if __name__ == "__main__":
    main()
