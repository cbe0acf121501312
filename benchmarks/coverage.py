"""The share of targets that the intervals and sets of `evaluate.coverage` hold, over many splits.

    python -m benchmarks.coverage --splits 100

All rows of a bundled table are divided anew each time; a small network trains with early stopping
on the validation rows, which then say how wide an interval is, and the test rows say how many
targets it holds. With folds each row is scored by the network that has not learned from it, and the
mean of all networks predicts. Nothing but the split differs between runs.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.trainings import Case, loaded, prepare, start
from stages.evaluate.measure.coverage import measure_coverage
from stages.features.schema import Array
from stages.model.calibration import UNCALIBRATED
from stages.model.conformal import read_conformal
from stages.model.ensemble import Ensemble
from stages.model.model import make_model, read_spec
from stages.tensors.batch import Batch, take, to_batch
from stages.training.data.source import TensorSource
from stages.training.device.distributed import World
from stages.training.loop import train
from stages.training.recipe import BUILT
from tests.conftest import ROOT

TEST, VALIDATION = 0.2, 0.2
FOLDS = 4


def main() -> None:
    """Measure each table, without folds and with, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=100)
    options = parser.parse_args()
    print("| table | coverage asked for | trainings | held, mean ± standard error | mean size |")
    print("|---|---|---|---|---|")
    raw = ROOT / "data/raw"
    narrow = {"build.model": {"name": "mlp", "width": 16}, "train.epochs": 30}
    cases = [
        Case("diabetes", raw / "diabetes.parquet", "progression", narrow, 0),
        Case("breast_cancer", raw / "breast_cancer.parquet", "diagnosis", narrow, 0),
        Case("digits", raw / "digits.parquet", "label", narrow | {"train.epochs": 6}, 0),
    ]
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            prepare(case, Path(folder))
            spawn = get_context("spawn")
            with ProcessPoolExecutor(os.cpu_count(), spawn, start, (Path(folder),)) as workers:
                for coverage, folds in ((0.9, 1), (0.5, 1), (0.9, FOLDS)):
                    work = partial(measure, coverage=coverage, num_folds=folds)
                    found = list(workers.map(work, range(options.splits), chunksize=4))
                    print(f"| {case.name} | {coverage} | {folds} | {describe(found)} |", flush=True)


def describe(found: Sequence[tuple[float, float]]) -> str:
    """The mean share that was held with its standard error, and the mean size."""
    shares, sizes = zip(*found, strict=True)
    error = statistics.stdev(shares) / len(shares) ** 0.5
    return f"{statistics.fmean(shares):.4f} ± {error:.4f} | {statistics.fmean(sizes):.4g}"


def measure(seed: int, coverage: float, num_folds: int) -> tuple[float, float]:
    """Divide, train, predict: the share of test targets inside, and the mean size."""
    data, predictor, arrays, _ = loaded()
    learned, others = data.train.take(slice(None)), data.validation.take(slice(None))
    tested = to_batch(arrays, predictor.statistics), torch.from_numpy(np.array(arrays["target"]))
    batch: Batch = {
        kind: torch.cat([part[0][kind] for part in (learned, others, tested)]) for kind in tested[0]
    }
    target = torch.cat([part[1] for part in (learned, others, tested)])
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(target)))
    test, known = rows[: round(TEST * len(rows))], rows[round(TEST * len(rows)) :]
    size = round(VALIDATION * len(rows))
    parts = [known[:size]] if num_folds == 1 else list(torch.chunk(known, num_folds))
    models, scores = [], []
    for part in parts:
        others = known[~torch.isin(known, part)]
        models.append(fit(batch, target, others, part, seed))
        scores.append(score(models[-1], take(batch, part)))
    spec = read_spec(BUILT)
    served = models[0] if num_folds == 1 else Ensemble(models, spec.num_outputs)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        judged = target[torch.cat(parts)].numpy()
        np.save(Path(folder) / "scores.npy", np.concatenate(scores).astype(np.float32))
        np.save(Path(folder) / "target.npy", judged)
        moments = predictor.statistics.target
        deviation = None if moments is None else moments.deviation
        conformal = read_conformal(Path(folder), coverage, UNCALIBRATED, deviation)
    table = replace(predictor, conformal=conformal).decode(score(served, take(batch, test)))
    actual: Array = target[test].numpy()
    if moments is not None:
        actual = actual.astype(np.float64) * moments.deviation + moments.mean
    found = measure_coverage(table, actual, predictor.schema.target.classes)
    return found.share.value, found.size


def fit(
    batch: Batch, target: Tensor, learned: Tensor, validated: Tensor, seed: int
) -> torch.nn.Module:
    """Train on some rows, and keep the best epoch on others."""
    data, _, _, params = loaded()
    sources = [TensorSource(take(batch, rows), target[rows]) for rows in (learned, validated)]
    data = replace(data, train=sources[0], validation=sources[1])
    model = make_model(read_spec(BUILT), seed)
    result = train(model, data, params, seed, World(), lambda *_: None)
    model.load_state_dict(result.weights)
    return model.eval()


@torch.inference_mode()
def score(model: torch.nn.Module, batch: Batch) -> np.ndarray:
    """The scores (rows, outputs) in float64."""
    return np.asarray(model(batch).double().numpy())


if __name__ == "__main__":
    main()
