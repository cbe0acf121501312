"""What inference costs beside the least that it could: the stage's own path from file to file.

    python -m benchmarks.infer            # speed, then memory
    python -m benchmarks.infer --memory   # memory alone

Speed: rows a second from Parquet to Parquet (read, encode, model, notes, write), in turns with a
bare loop over tensors that already lie in memory, and with ONNX Runtime over arrays that do, all
on every core and with the same batch size. By processor time each peer has one thread and the
stage the sum over all of its own: what other work on the machine hardly touches. Memory: the peak
of a process that predicts files of more and more rows.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch

from stages.features.encode import encode
from stages.features.schema import Feature, Moments, Schema, Statistics, Target
from stages.infer.export.onnx_graph import to_onnx
from stages.infer.write import write_predictions
from stages.model.model import ModelSpec, make_model
from stages.model.predictor import ROWS_AT_A_TIME, Predictor
from stages.tensors.batch import Batch, take, to_batch

ROWS = 300_000
ROUNDS = 7
# Hidden layers by width: a toy, a usual size for a table of eight numbers, a large one.
MODELS = ((64, 2), (256, 3), (512, 4))
MEMORY_ROWS = (160_000, 1_300_000, 5_000_000)
MEBIBYTE = 1 << 20
TOWNS = ("Bergen", "Bodø", "Oslo", "Stavanger", "Tromsø")
NUMBERS = tuple(f"x{number}" for number in range(8))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--predict", type=Path, help="predict a file and print the peak, in MiB")
    options = parser.parse_args()
    if options.predict:
        print(_predict_alone(options.predict))
        return
    with tempfile.TemporaryDirectory() as folder:
        if not options.memory:
            _measure_speed(Path(folder))
        _measure_memory(Path(folder))


def _measure_speed(folder: Path) -> None:
    source = _write_table(folder / "rows.parquet", ROWS)
    cores = len(os.sched_getaffinity(0))
    print("| mlp | stage, rows/s | bare loop | ONNX Runtime | of the faster | by processor time |")
    print("|---|---|---|---|---|---|")
    for width, layers in MODELS:
        predictor = make_predictor(width, layers)
        batch = _load(source, predictor)
        ours = _stage(predictor, source, folder)
        by_cores = [ours, *_peers(predictor, batch, cores)]
        alone = [ours, *_peers(predictor, batch, 1)]
        for run in (*by_cores, *alone):
            run()
        walls = [[_seconds(run, time.perf_counter) for run in by_cores] for _ in range(ROUNDS)]
        used = [[_seconds(run, time.process_time) for run in alone] for _ in range(ROUNDS)]
        rates = [ROWS / statistics.median(column) for column in zip(*walls, strict=True)]
        shown = " | ".join(f"{rate / 1e6:.2f} M" for rate in rates)
        print(f"| {layers} layers of {width} | {shown} | {_share(walls)} | {_share(used)} |")


def _share(rounds: list[list[float]]) -> str:
    """Of the stage's speed in that of the faster peer: the median and the range."""
    shares = [min(theirs) / mine for mine, *theirs in rounds]
    return f"**{statistics.median(shares):.2f}** ({min(shares):.2f} to {max(shares):.2f})"


def _stage(predictor: Predictor, source: Path, folder: Path) -> Callable[[], object]:
    target, rejected = folder / "predictions.parquet", folder / "rejected.csv"
    return lambda: write_predictions(source, target, rejected, predictor, "infer.input")


def _peers(predictor: Predictor, batch: Batch, threads: int) -> list[Callable[[], object]]:
    return [_loop(predictor, batch, threads), _runtime(predictor, batch, threads)]


def _loop(predictor: Predictor, batch: Batch, threads: int) -> Callable[[], object]:
    @torch.inference_mode()
    def run() -> object:
        torch.set_num_threads(threads)
        return [predictor.model(take(batch, rows)) for rows in _batches()]

    return run


def _runtime(predictor: Predictor, batch: Batch, threads: int) -> Callable[[], object]:
    import onnxruntime

    few = {kind: tensor[:8].numpy() for kind, tensor in batch.items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    content = to_onnx(predictor, few).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    arrays = {f"model/{kind}": tensor.numpy() for kind, tensor in batch.items()}

    def run() -> object:
        return [session.run(None, {k: a[rows] for k, a in arrays.items()}) for rows in _batches()]

    return run


def _batches() -> Iterator[slice]:
    return (slice(start, start + ROWS_AT_A_TIME) for start in range(0, ROWS, ROWS_AT_A_TIME))


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def _measure_memory(folder: Path) -> None:
    kinds = (".parquet", ".csv")
    print("\n| rows | " + " | ".join(f"peak, {kind[1:]}" for kind in kinds) + " |")
    print("|---|---|---|")
    for num_rows in MEMORY_ROWS:
        peaks = []
        for kind in kinds:
            source = _write_table(folder / f"rows{kind}", num_rows)
            command = [sys.executable, "-m", "benchmarks.infer", "--predict", str(source)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(f"{done.stdout.strip()} MiB")
            source.unlink()
        print(f"| {num_rows:,} | {' | '.join(peaks)} |")


def _predict_alone(source: Path) -> int:
    """The peak of this process in MiB, once it has predicted `source`."""
    _stage(make_predictor(256, 3), source, source.parent)()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MEBIBYTE


def make_predictor(width: int, layers: int) -> Predictor:
    """A model of untrained weights for the table of `_write_table`."""
    features = [Feature(name=name, kind="numeric") for name in NUMBERS]
    features.append(Feature(name="town", kind="categorical", categories=list(TOWNS)))
    schema = Schema(key="id", features=features, target=Target(name="y", task="regression"))
    one = Moments(mean=0.0, deviation=1.0)
    moments = Statistics(numeric=dict.fromkeys(NUMBERS, one), image=[], target=one)
    arguments = {"width": width, "layers": layers}
    spec = ModelSpec(name="mlp", arguments=arguments, inputs=schema.inputs(), num_outputs=1)
    return Predictor(make_model(spec, seed=0).eval(), schema, moments, "0" * 32)


def _write_table(path: Path, num_rows: int) -> Path:
    """Eight numbers and a category, in blocks, so that this process stays small."""
    from pyarrow import csv, parquet

    writer = None
    for table in _tables(num_rows):
        made = table.to_arrow(compat_level=pl.CompatLevel.oldest())
        if writer is None:
            kind = parquet.ParquetWriter if path.suffix == ".parquet" else csv.CSVWriter
            writer = kind(path, made.schema)
        writer.write_table(made)
    assert writer is not None
    writer.close()
    return path


def _tables(num_rows: int, block: int = 100_000) -> Iterator[pl.DataFrame]:
    random = np.random.default_rng(0)
    for start in range(0, num_rows, block):
        count = min(block, num_rows - start)
        columns: dict[str, object] = {"id": np.arange(start, start + count)}
        columns |= {name: random.normal(size=count) for name in NUMBERS}
        columns["town"] = np.array(TOWNS)[random.integers(len(TOWNS), size=count)]
        yield pl.DataFrame(columns)


def _load(source: Path, predictor: Predictor) -> Batch:
    table = pl.read_parquet(source)
    arrays = encode(table, predictor.schema, predictor.statistics, "infer.input")
    return to_batch(arrays, predictor.statistics)


if __name__ == "__main__":
    main()
