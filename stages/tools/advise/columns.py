"""Columns: which the model could do without, and one that tells the target all alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from stages.features.numbers import Rows
from stages.features.schema import CODES, Array, Feature
from stages.features.spelling import as_line
from stages.tensors.batch import Batch
from stages.tools.advise.measure.arms import Arm
from stages.tools.advise.measure.judge import UNCALIBRATED, Metric
from stages.tools.advise.measure.rows import Change, Pool, Split, constant_scores
from stages.train.calibrate import score
from stages.training.data.source import TensorSource

MAX_DROPPED = 5
# A column that alone reaches this share of what all reach, from a constant prediction on.
LEAK_SHARE = 0.95
# Of a model that is far from perfect itself, a strong column is no sign of a leak.
WHOLE_SHARE = 0.8
MIN_COLUMNS = 2
NUM_LEAVES, MIN_LEAF = 64, 5


@dataclass(frozen=True)
class Leak:
    """A column whose values alone reach `alone` of the metric, where all of them reach `whole`.

    `constant` is the metric of a prediction that is the same for all rows.
    """

    column: str
    alone: float
    whole: float
    constant: float


def tables_of(pool: Pool) -> list[Feature]:
    """The columns that can be left out one by one: of a table, without texts and images."""
    return [f for f in pool.schema.features if not f.is_array and f.kind != "text"]


def drop_arms(names: list[str], present: dict[str, str]) -> Iterator[Arm]:
    """Yield an arm for each column that is to be left out.

    `present` is `prepare.columns` as it stands.
    """
    for name in names:
        applies = {"prepare.columns": {**present, name: "exclude"}}
        title = f"prepare.{as_line(name, 'exclude')}"
        yield Arm("data", f"column {name}", title, {}, Change(column=name), applies)


def least_needed(pool: Pool, split: Split, model: nn.Module, metric: Metric) -> list[str]:
    """The columns that the model needs least, by what it loses when their rows are shuffled.

    Of a table with as few columns as one, none.
    """
    features = tables_of(pool)
    if len(features) < MIN_COLUMNS:
        return []
    rows = split.validated
    data = pool.divide(split, Change())
    batch, _ = data.validation.take(slice(None))
    order = torch.from_numpy(np.random.default_rng([pool.seed, 4]).permutation(len(rows)))
    places, found = pool.schema.places(), []
    before = _value(pool, rows, model, batch, metric)
    for feature in features:
        values = batch[feature.kind].clone()
        at = places[feature.name].all
        values[:, at] = values[order][:, at]
        value = _value(pool, rows, model, {**batch, feature.kind: values}, metric)
        found.append((before - value, feature.name))
    # Those whose rows could be any: the model loses nothing, or gains.
    ranked = sorted(found, key=lambda each: each[0])
    return [name for _, name in ranked[: min(MAX_DROPPED, len(features) - 1)]]


def _value(pool: Pool, rows: Rows, model: nn.Module, batch: Batch, metric: Metric) -> float:
    source = TensorSource(batch, pool.rows.target[torch.from_numpy(rows)])
    scores, _ = score(model, source)
    return metric.sign * metric.measure(pool, rows, scores, UNCALIBRATED)


def find_leak(pool: Pool, split: Split, whole: float, metric: Metric) -> Leak | None:
    """The column that tells the target nearly alone; `whole` is the metric with all columns.

    By a decision tree on each column, learned and judged on the rows of `split`.
    """
    features = tables_of(pool)
    if len(pool.schema.features) < MIN_COLUMNS:
        return None
    rows = split.validated
    constant = metric.measure(pool, rows, constant_scores(pool, split), UNCALIBRATED)
    places = pool.schema.places()
    best: Leak | None = None
    for feature in features:
        at = places[feature.name].all
        columns = pool.rows.batch[feature.kind][:, at].cpu().numpy()
        alone = _alone(pool, split, columns, metric, is_code=feature.kind in CODES)
        if best is None or metric.sign * (alone - best.alone) > 0:
            best = Leak(feature.name, alone, whole, constant)
    return best if best is not None and _tells_all(best, metric) else None


def _tells_all(leak: Leak, metric: Metric) -> bool:
    reached = metric.sign * (leak.alone - leak.constant)
    possible = metric.sign * (leak.whole - leak.constant)
    perfect = metric.sign * (metric.perfect - leak.constant)
    return possible >= WHOLE_SHARE * perfect and reached >= LEAK_SHARE * possible


def _alone(pool: Pool, split: Split, columns: Array, metric: Metric, *, is_code: bool) -> float:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    learned, rows = split.learned, split.validated
    target = pool.rows.target.cpu().numpy()
    if is_code:
        # Codes have no order: each by how its rows have it.
        columns = _encode(columns[:, 0], learned, target, pool.schema.num_outputs())
    options = {"max_leaf_nodes": NUM_LEAVES, "min_samples_leaf": MIN_LEAF, "random_state": 0}
    if metric.task == "regression":
        tree = DecisionTreeRegressor(**options).fit(columns[learned], target[learned])
        scores = tree.predict(columns[rows])[:, None]
    else:
        tree = DecisionTreeClassifier(**options).fit(columns[learned], target[learned])
        shares = np.full((len(rows), pool.schema.num_outputs()), 1e-6)
        shares[:, tree.classes_] += tree.predict_proba(columns[rows])
        scores = np.log(shares)
    return metric.measure(pool, rows, scores, UNCALIBRATED)


def _encode(codes: Array, learned: Array, target: Array, num_outputs: int) -> Array:
    """Codes (rows,) as the mean target of their learned rows (rows, outputs)."""
    outputs = target[learned, None] if num_outputs == 1 else np.eye(num_outputs)[target[learned]]
    size = int(codes.max()) + 1
    sums = np.zeros((size, outputs.shape[1]))
    np.add.at(sums, codes[learned], outputs)
    counts = np.bincount(codes[learned], minlength=size)[:, None]
    means: Array = np.where(counts > 0, sums / np.maximum(counts, 1), outputs.mean(axis=0))
    return np.asarray(means[codes])
