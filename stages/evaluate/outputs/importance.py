"""Permutation importance: how much worse the model is when a column's test rows are shuffled.

See Breiman, 'Random Forests', Machine Learning 45, 2001. Columns that say
the same stand in for one another, so that each of them may look unimportant.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from stages.common.files import rounded, write_csv
from stages.evaluate.measure.bootstrap import SEED
from stages.evaluate.measure.metrics import compute_metrics, less_is_better
from stages.evaluate.measure.predictions import Predicted
from stages.evaluate.measure.weighted_metrics import Floats
from stages.features.schema import Array, Feature, Place, Schema
from stages.model.attribution import attribute, say_doubts
from stages.model.predictor import Predictor

REPEATS = 5
MAX_ROWS_ATTRIBUTED = 1000
# Of images so many numbers are, and at least a hundred rows: each costs 48 gradients or more.
MAX_NUMBERS_ATTRIBUTED, MIN_ROWS_ATTRIBUTED = 1 << 18, 100
# Evenly spaced test rows: each column costs `REPEATS` predictions of them.
MAX_ROWS = 5000
# Of more columns than the first so many as the second are shuffled, those that move predictions
# most: the more columns there are, the longer takes a prediction, and each column costs five.
MAX_COLUMNS, OF_MANY = 200, 50
COLUMNS = ("column", "importance", "deviation")

Score = Callable[[dict[str, Array]], Predicted]


def write_importance(
    path: Path,
    name: str,
    schema: Schema,
    arrays: Mapping[str, Array],
    target: Array,
    score: Score,
    moved: Mapping[str, float],
    weights: Floats | None = None,
) -> str | None:
    """A line for each column but images: how much worse the metric `name` is without it.

    Of more than 200 columns the fifty that move predictions most, by `moved` (`write_attribution`).

    That is the mean and the standard deviation over five shuffles, in the metric's units; the
    most important first, which is returned. `score` gives for `arrays` what `compute_metrics`
    takes. A model of images alone has none.
    """
    step = -(-len(target) // MAX_ROWS)
    thin = {kind: np.array(array[::step]) for kind, array in arrays.items()}
    features = _most_moving(schema, moved)
    lines: list[tuple[str, float, float]] = []
    if features:
        random = np.random.Generator(np.random.PCG64(SEED))
        sign = 1 if less_is_better(name) else -1

        def measure(changed: dict[str, Array]) -> float:
            rows = target[::step], score(changed), None if weights is None else weights[::step]
            return compute_metrics([name], schema.target.task, *rows)[name] * sign

        before, places = measure(thin), schema.places()
        for feature in features:
            worse = []
            for _ in range(REPEATS):
                order = random.permutation(len(thin["key"]))
                worse.append(
                    measure(_shuffled(feature.kind, places[feature.name], thin, order)) - before
                )
            mean, deviation = float(np.mean(worse)), float(np.std(worse))
            lines.append((feature.name, rounded(mean), rounded(deviation)))
    lines.sort(key=lambda line: -line[1])
    write_csv(path, COLUMNS, lines)
    return lines[0][0] if lines else None


def _most_moving(schema: Schema, moved: Mapping[str, float]) -> list[Feature]:
    """The features but images, in their order; of too many, those that `moved` has as largest."""
    features = [feature for feature in schema.features if not feature.is_array]
    if len(features) <= MAX_COLUMNS:
        return features
    # What can't be told apart by attribution is no less important for it.
    ordered = sorted(features, key=lambda f: -moved.get(f.name, np.inf))
    kept = {feature.name for feature in ordered[:OF_MANY]}
    return [feature for feature in features if feature.name in kept]


def _shuffled(
    kind: str, place: Place, arrays: Mapping[str, Array], order: Array
) -> dict[str, Array]:
    """`arrays` with one column in another order, where its gaps are with it."""
    changed = arrays[kind].copy()
    changed[:, place.all] = changed[order][:, place.all]
    return {**arrays, kind: changed}


def write_attribution(
    path: Path, predictor: Predictor, arrays: Mapping[str, Array], codes: Array
) -> tuple[dict[str, float], list[str]]:
    """A line for each column: how far it moves a prediction from the average row's, in the mean.

    Over at most 1,000 test rows, of large images fewer; in units of the target, or of the score of
    the predicted class, `codes` (rows,). An image has nine, by its areas. The one that moves most
    is first. Rows whose explanation is not to be believed don't count. Returns what it writes, and
    what is to be said of it: rows and columns that are not explained.
    """
    shapes = [feature.shape for feature in predictor.schema.features if feature.shape]
    most = MAX_NUMBERS_ATTRIBUTED // math.prod(shapes[0]) if shapes else MAX_ROWS_ATTRIBUTED
    step = -(-len(codes) // min(MAX_ROWS_ATTRIBUTED, max(MIN_ROWS_ATTRIBUTED, most)))
    thin = {kind: np.array(array[::step]) for kind, array in arrays.items()}
    found = attribute(predictor, thin, codes[::step])
    kept, names = found.values[found.believed], found.columns if found.believed.any() else []
    means = np.abs(kept).sum(axis=0) / max(1, len(kept))
    lines = [(name, rounded(float(m))) for name, m in zip(names, means, strict=False)]
    lines.sort(key=lambda line: -line[1])
    write_csv(path, ("column", "attribution"), lines)
    doubted = len(found.values) - len(kept)
    notes = say_doubts(len(codes[::step]), doubted, found.left_out, f"{path.name} is without")
    return dict(lines), notes
