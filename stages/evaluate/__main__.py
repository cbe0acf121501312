"""From the trained model and the test split to metrics, predictions, plots.

    python -m stages.evaluate

Reads `data/prepare/test` and `data/train`; writes `data/evaluate/metrics.json`,
`intervals.json`, `slices.csv`, `classes.csv`, `mistakes.csv`, `card.md`,
`predictions.parquet` (row key, target, prediction, probabilities) and plots. The train rows say
where numbers are cut into slices.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.files import read_json, write_json
from stages.common.params import Params
from stages.common.predict import Predictor, load_predictor
from stages.common.schema import Array, load_arrays
from stages.common.stage import run_stage
from stages.evaluate.bootstrap import LEVEL, RESAMPLES, Interval, find_intervals
from stages.evaluate.card import write_card
from stages.evaluate.importance import write_attribution, write_importance
from stages.evaluate.mistakes import write_classes, write_mistakes
from stages.evaluate.params import EvaluateParams
from stages.evaluate.plots import write_plots
from stages.evaluate.slices import Slice, cut, find_worst, measure_slices, write_slices
from stages.evaluate.weighted import Floats

LINEAGE = (
    *(Path("data/train") / name for name in ("model.safetensors", "model.json")),
    *(Path("data/prepare") / name for name in ("schema.json", "statistics.json")),
    *(Path("data/prepare/test") / name for name in ("key.npy", "target.npy")),
)


def evaluate(params: Params, out: Path) -> None:
    """Predict the test rows, measure, write."""
    section = params.section("evaluate", EvaluateParams)
    names = section.metrics
    predictor = load_predictor()
    schema = predictor.schema
    train, arrays = (load_arrays(Path("data/prepare") / split) for split in ("train", "test"))
    parts = list(cut(section.slices, schema, predictor.statistics, train, arrays))
    table = predictor.decode(predictor.scores(arrays))
    target, predicted = _target(predictor, arrays), _compared(predictor, table)

    intervals = find_intervals(names, schema.target.task, target, predicted)
    slices = measure_slices(names[0], schema, parts, target, predicted)
    worst = find_worst(names[0], slices)
    metrics = {name: found.value for name, found in intervals.items()}
    write_json(out / "metrics.json", metrics | _of_worst(names[0], worst))
    write_slices(out / "slices.csv", names[0], slices)
    write_json(out / "intervals.json", _described(intervals, table.height))
    key, classes = schema.key or "row", schema.target.classes
    write_classes(out / "classes.csv", classes, target, predicted)
    write_mistakes(out / "mistakes.csv", key, arrays["key"], classes, target, predicted)
    write_plots(out / "plots", classes, target, predicted)

    def score(changed: dict[str, Array]) -> Floats:
        return _compared(predictor, predictor.decode(predictor.scores(changed)))

    write_importance(out / "plots/importance.csv", names[0], schema, arrays, target, score)
    codes = predicted.argmax(axis=1) if classes else np.zeros(len(target), np.int64)
    write_attribution(out / "plots/attribution.csv", predictor, arrays, codes)

    sizes = {"train": len(train["key"]), "test": len(arrays["key"])}
    model = read_json(Path("data/train/model.json"))
    write_card(out / "card.md", schema, model, sizes, intervals, slices, LINEAGE)

    actual = pl.Series("target", _actual(predictor, target))
    keys = pl.Series(key, np.array(arrays["key"]))
    table.insert_column(0, actual).insert_column(0, keys).write_parquet(
        out / "predictions.parquet", compression="zstd", statistics=True
    )
    shown = (f"{name} {found.value:.4f}" for name, found in intervals.items())
    print(f"{table.height} test rows: {', '.join(shown)}")
    if worst is not None:
        what, value = f"{worst.column} {worst.label}", worst.metric.value
        print(f"worst slice: {what} ({worst.rows} rows): {names[0]} {value:.4f}")


def _of_worst(name: str, worst: Slice | None) -> dict[str, float]:
    """The worst slice as metrics: its value, and the interval where there is one."""
    if worst is None:
        return {}
    interval = worst.metric
    ends = {"": interval.value, "_low": interval.low, "_high": interval.high}
    return {f"worst_slice_{name}{e}": value for e, value in ends.items() if value is not None}


def _described(intervals: dict[str, Interval], num_rows: int) -> dict[str, object]:
    metrics = {name: asdict(interval) for name, interval in intervals.items()}
    return {"level": LEVEL, "resamples": RESAMPLES, "rows": num_rows, "metrics": metrics}


def _target(predictor: Predictor, arrays: dict[str, Array]) -> Array:
    """Class codes, or values in the target's units."""
    target = np.array(arrays["target"])
    moments = predictor.statistics.target
    if predictor.schema.target.classes is not None:
        return target
    assert moments is not None
    return np.asarray(target.astype(np.float64) * moments.deviation + moments.mean)


def _compared(predictor: Predictor, table: pl.DataFrame) -> Floats:
    """Of decoded rows, the probabilities (rows, classes) or the values (rows,)."""
    if predictor.schema.target.classes is not None:
        return table.select(pl.selectors.starts_with("probability_")).to_numpy()
    return table["prediction"].to_numpy()


def _actual(predictor: Predictor, target: Array) -> pl.Series | Array:
    classes = predictor.schema.target.classes
    return target if classes is None else pl.Series(classes)[target.astype(np.int64)]


if __name__ == "__main__":
    run_stage("evaluate", evaluate)
