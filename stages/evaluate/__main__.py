"""Metrics, predictions and plots, from the trained model and the test split.

    python -m stages.evaluate

Reads `data/prepare/test` and `data/train`; writes `data/evaluate/metrics.json`,
`intervals.json`, `slices.csv`, `classes.csv`, `mistakes.csv` and, of images, `mistakes.png`,
`card.md`, `predictions.parquet` (row key, target, prediction, probabilities, interval or set of
classes; the weight behind the target, where rows have some), plots, and of every replica
`replicas/<k>.parquet`; number 0 is `predictions.parquet`. The train rows say where numbers are cut
into slices, those of `data/train/validation` how wide an interval is.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl

from stages.common.files import read_json, write_json
from stages.common.params import Params
from stages.common.yamlfile import yaml_text
from stages.evaluate.measure.bootstrap import LEVEL, RESAMPLES, Interval, find_intervals
from stages.evaluate.measure.coverage import Covered, measure_coverage
from stages.evaluate.measure.metrics import check_defined, compute_metrics
from stages.evaluate.measure.predictions import WEIGHT, Predicted, codes_of, read_predicted
from stages.evaluate.measure.questions import Judged, find_questions
from stages.evaluate.measure.row_weights import read_weights
from stages.evaluate.measure.weighted_metrics import Floats
from stages.evaluate.outputs.card import Facts, write_card
from stages.evaluate.outputs.contact_sheet import write_sheet
from stages.evaluate.outputs.importance import write_attribution, write_importance
from stages.evaluate.outputs.mistakes import find_mistakes, write_classes, write_mistakes
from stages.evaluate.outputs.plots import write_plots
from stages.evaluate.outputs.residuals import write_residuals
from stages.evaluate.outputs.seeds import Spread, count_replicas, spread_of
from stages.evaluate.outputs.slices import Slice, cut, find_worst, measure_slices, write_slices
from stages.evaluate.params import EvaluateParams
from stages.features.schema import Array, Class, load_arrays
from stages.features.target_scale import to_units
from stages.model.calibration import to_probabilities
from stages.model.predictor import Predictor, load_predictor
from stages.runtime.stage import run_stage

TRAINED = Path("data/train")
LINEAGE = (
    *(TRAINED / name for name in ("model.safetensors", "model.json")),
    *(TRAINED / name for name in ("calibration.json", "recipe.json")),
    *(Path("data/prepare") / name for name in ("schema.json", "statistics.json")),
    *(Path("data/prepare/test") / name for name in ("key.npy", "target.npy")),
)
WEIGHTS = Path("data/prepare/test/weight.npy")


def evaluate(params: Params, out: Path) -> None:
    """Predict the test rows, measure, write."""
    section = params.section("evaluate", EvaluateParams)
    names = section.metrics
    predictor = load_predictor(coverage=section.coverage)
    schema = predictor.schema
    train, arrays = (load_arrays(Path("data/prepare") / split) for split in ("train", "test"))
    parts = list(cut(section.slices, schema, predictor.statistics, train, arrays))
    scores = predictor.scores(arrays)
    table = predictor.decode(scores)
    target, predicted = _target(predictor, arrays), read_predicted(table)
    weights = read_weights(arrays)
    others = [
        load_predictor(replica=k, coverage=section.coverage) for k in range(1, count_replicas())
    ]
    tables = [table, *(other.decode(other.scores(arrays)) for other in others)]

    task = schema.target.task
    by_replica = [
        compute_metrics(names, task, target, read_predicted(each), weights) for each in tables
    ]
    check_defined(by_replica)
    intervals = find_intervals(names, task, target, predicted, weights=weights)
    spreads = {name: spread_of([found[name] for found in by_replica]) for name in names}
    slices = measure_slices(names[0], schema, parts, target, predicted, weights)
    worst = find_worst(names[0], slices)
    metrics = {name: found.value for name, found in intervals.items()}
    covered = None
    if predictor.conformal is not None:
        covered = measure_coverage(table, target, schema.target.classes, weights)
    of_sets = {} if covered is None else covered.metrics()
    write_json(out / "metrics.json", metrics | _of_worst(names[0], worst) | of_sets)
    write_slices(out / "slices.csv", names[0], slices)
    write_json(out / "intervals.json", _described(intervals, spreads, covered, table.height))
    key, classes = schema.key or "row", _class_names(schema.target.classes)
    write_classes(out / "classes.csv", classes, target, predicted, weights)
    mistakes = find_mistakes(arrays["key"], classes, target, predicted)
    write_mistakes(out / "mistakes.csv", key, classes, mistakes)
    write_sheet(out / "mistakes.png", arrays.get("image"), mistakes)
    uncalibrated = _uncalibrated(predictor, scores)
    write_plots(out / "plots", classes, target, predicted, uncalibrated, weights)
    residuals = [(f"{s.column}: {s.label}", s.rows, s.residual) for s in slices if s.residual]
    write_residuals(out / "plots/residuals_by_slice.csv", residuals)

    _print_metrics(table.height, intervals, of_sets, spreads, len(tables))

    def score(changed: dict[str, Array]) -> Predicted:
        return read_predicted(predictor.decode(predictor.scores(changed)))

    codes = codes_of(predicted) if classes else np.zeros(len(target), np.int64)
    moving, unexplained = write_attribution(out / "plots/attribution.csv", predictor, arrays, codes)
    file = out / "plots/importance.csv"
    first = write_importance(file, names[0], schema, arrays, target, score, moving, weights)
    recipe, scale = read_json(TRAINED / "recipe.json"), predictor.statistics.target
    judged = Judged(
        names[0],
        metrics[names[0]],
        _target(predictor, train),
        target,
        predicted,
        None if classes is None else len(classes),
        weights,
        is_tilted=recipe["train"].get("class_weights") is not None
        or predictor.calibration.threshold is not None,
        is_transformed=scale is not None and scale.transform is not None,
    )
    # With folds these are all rows: each was validated by the training that had not seen it.
    num_validation = len(np.load(TRAINED / "validation/target.npy", mmap_mode="r"))
    questions = list(find_questions(judged, covered, section.coverage, num_validation, first))

    facts = Facts(
        schema,
        read_json(TRAINED / "model.json"),
        recipe,
        predictor.calibration,
        predictor.conformal,
        covered,
        {"train": _counts(train, classes), "test": _counts(arrays, classes)},
        table.height,
        intervals,
        spreads,
        slices,
        questions,
        (*LINEAGE, *([] if weights is None else [WEIGHTS])),
        None if scale is None else scale.transform,
    )
    write_card(out / "card.md", facts)

    beside = [pl.Series(key, np.array(arrays["key"]))]
    beside += [pl.Series("target", _actual(predictor, target))]
    beside += [] if weights is None else [pl.Series(WEIGHT, np.array(arrays["weight"]))]
    (out / "replicas").mkdir()
    for replica, each in enumerate(tables):
        file = out / "replicas" / f"{replica}.parquet"
        rows = pl.DataFrame([*beside, *each.iter_columns()])
        rows.write_parquet(file, compression="zstd", statistics=True)
    shutil.copyfile(out / "replicas" / "0.parquet", out / "predictions.parquet")
    for question in questions:
        print(f"warning  {question}")
    print(*unexplained, sep="\n", end="\n" if unexplained else "")
    if worst is not None:
        what, value = f"{worst.column or repr('')} {worst.label}", worst.metric.value
        print(f"worst slice: {what} ({worst.rows} rows): {names[0]} {value:.4f}")


def _print_metrics(
    num_rows: int,
    intervals: dict[str, Interval],
    of_sets: dict[str, float],
    spreads: dict[str, Spread],
    num_seeds: int,
) -> None:
    """Print the metrics, and what the stage is at from here on."""
    shown = [f"{name} {found.value:.4f}" for name, found in intervals.items()]
    shown += [f"{name} {value:.4g}" for name, value in of_sets.items()]
    print(f"{num_rows} test rows: {', '.join(shown)}")
    if num_seeds > 1:
        moved = (f"{name} {s.mean:.4f} ± {s.deviation:.4f}" for name, s in spreads.items())
        print(f"mean ± deviation over {num_seeds} seeds: {', '.join(moved)}")
    print("next, the longest part: how much each column contributes", flush=True)


def _of_worst(name: str, worst: Slice | None) -> dict[str, float]:
    """The worst slice as metrics: its value, and the interval where there is one."""
    if worst is None:
        return {}
    interval = worst.metric
    ends = {"": interval.value, "_low": interval.low, "_high": interval.high}
    return {f"worst_slice_{name}{e}": value for e, value in ends.items() if value is not None}


def _described(
    intervals: dict[str, Interval],
    spreads: dict[str, Spread],
    covered: Covered | None,
    num_rows: int,
) -> dict[str, object]:
    metrics = {n: asdict(found) | {"seeds": asdict(spreads[n])} for n, found in intervals.items()}
    of_all = {"level": LEVEL, "resamples": RESAMPLES, "rows": num_rows, "metrics": metrics}
    return of_all | ({} if covered is None else {"coverage": asdict(covered.share)})


def _target(predictor: Predictor, arrays: dict[str, Array]) -> Array:
    """Class codes, or values in the target's units."""
    target = np.array(arrays["target"])
    moments = predictor.statistics.target
    if predictor.schema.target.classes is not None:
        return target
    assert moments is not None
    return to_units(target, moments)


def _class_names(classes: Sequence[Class] | None) -> list[str] | None:
    return None if classes is None else [yaml_text(value) for value in classes]


def _counts(arrays: dict[str, Array], classes: Sequence[Class] | None) -> list[int]:
    """The rows of each class."""
    if classes is None:
        return []
    counts: list[int] = np.bincount(np.array(arrays["target"]), minlength=len(classes)).tolist()
    return counts


def _uncalibrated(predictor: Predictor, scores: Floats) -> Floats | None:
    """The probabilities that a temperature has changed, if there is one."""
    return None if predictor.calibration.temperature == 1 else to_probabilities(scores)


def _actual(predictor: Predictor, target: Array) -> pl.Series | Array:
    classes = predictor.schema.target.classes
    return target if classes is None else pl.Series(classes)[target.astype(np.int64)]


if __name__ == "__main__":
    run_stage("evaluate", evaluate)
