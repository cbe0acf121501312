"""The best answer without looking at a row, on the rows that the last training was validated on.

A training that is no better by its metric and by its loss has learned nothing. Each answer that is
the same for all rows is at most as good as this one, which is the best in hindsight; so what is
better has looked at the rows, but for luck.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.common.files import read_json
from stages.common.yamlfile import yaml_text

PREPARED = Path("data/prepare")
RECIPE = Path("data/train/recipe.json")
VALIDATION = Path("data/train/validation")

Numbers = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
# The logarithm of how much likelier the rows are by a prediction that has learned nothing: two
# deviations of luck are 2 over all rows, so 2 / n in their mean.
LUCK = 2.0
# Whose scores are put in order.
MAX_ROWS = 20_000


@dataclass(frozen=True)
class Guess:
    """The metric and the loss of the best answer, and which it is.

    `luck` and `loss_luck`: how far that alone takes a training. `loss` is None where the loss of
    an answer without a row can't be told. `order`: by how many standard errors the order of the
    kept model's scores goes with the targets; a guess has none.
    """

    metric: float
    what: str
    luck: float = 0.0
    loss: float | None = None
    loss_luck: float = 0.0
    order: float = 0.0


@dataclass(frozen=True)
class Judged:
    """The rows of a history: each (rows,) their targets, their weights, and their folds.

    The weights are of mean 1 in each fold: as the training had them.
    """

    target: Array
    weight: Numbers
    fold: Array

    def mean(self, values: Array, finish: Callable[[float], float] = float) -> float:
        """The weighted mean of `values` (rows,); of several folds the mean of theirs, finished."""
        counted = np.asarray(values, np.float64) * self.weight
        folds = [counted[self.fold == fold].mean() for fold in np.unique(self.fold)]
        return float(np.mean([finish(float(each)) for each in folds]))

    def shares(self, num_classes: int) -> Numbers:
        """The weighted share of each class (classes,), a mean over the folds as well."""
        folds = [self.fold == fold for fold in np.unique(self.fold)]
        counts = [np.bincount(self.target[of], self.weight[of], num_classes) for of in folds]
        shares = [count / of.sum() for count, of in zip(counts, folds, strict=True)]
        return np.asarray(np.mean(shares, axis=0), np.float64)

    @property
    def count(self) -> float:
        """The number of rows; of rows with weights, of so many without that tell as much."""
        return max(1.0, float(self.weight.sum() ** 2 / np.square(self.weight).sum()))


def find_guess() -> Guess:
    """The best answer that is the same for all rows."""
    rows = read_judged()
    trained = read_json(RECIPE).get("train") or {} if RECIPE.exists() else {}
    of_task = _guess_value if rows.target.dtype.kind == "f" else _guess
    return replace(of_task(rows, trained), order=compare_order(rows.target))


def read_judged() -> Judged:
    """The rows that the training has noted; else those that prepare has set aside for it."""
    noted = VALIDATION if (VALIDATION / "target.npy").exists() else PREPARED / "validation"
    target = np.load(noted / "target.npy")
    fold = _load(noted / "fold.npy", np.zeros(len(target), np.int64))
    weight = np.asarray(_load(noted / "weight.npy", np.ones(len(target))), np.float64)
    for each in np.unique(fold):
        weight[fold == each] /= weight[fold == each].mean()
    return Judged(target, weight, fold)


def compare_order(target: Array) -> float:
    """The standard errors by which the order of the noted scores goes with `target` (rows,).

    Of a class it is the order by how far its score is above the others'. However sure of itself a
    model is, and however rare the class, rows that it can't tell apart come in any order.
    """
    from scipy.stats import rankdata

    if not (VALIDATION / "scores.npy").exists():
        return 0.0
    some = np.random.default_rng(0).permutation(len(target))[:MAX_ROWS]
    noted = np.load(VALIDATION / "scores.npy", mmap_mode="r")
    scores, target = np.asarray(noted[some], np.float64), target[some]
    if target.dtype.kind == "f":
        truth = rankdata(target)[:, None]
    else:
        truth = (target[:, None] == np.arange(scores.shape[1])).astype(np.float64)
        scores -= scores.mean(axis=1, keepdims=True)
    order = rankdata(scores, axis=0)
    together = ((order - order.mean(axis=0)) * (truth - truth.mean(axis=0))).sum(axis=1)
    error = float(together.std()) / math.sqrt(len(together))
    return float(together.mean()) / error if error > 0 else 0.0


def _load(path: Path, default: Array) -> Array:
    return np.load(path) if path.exists() else default


def _guess(rows: Judged, trained: Mapping[str, Any]) -> Guess:
    """That of classes: the most frequent one, or for the loss their shares."""
    classes = read_json(PREPARED / "schema.json")["target"]["classes"] if trained else []
    shares = rows.shares(max(len(classes), int(rows.target.max()) + 1))
    share = float(shares.max())
    luck = 2 * math.sqrt(max(share * (1 - share), 0.0) / rows.count)
    loss, loss_luck = None, 0.0
    spec = trained.get("loss") or {}
    if spec.get("name") == "CrossEntropyLoss":
        weights = class_weights(trained.get("class_weights"), classes)
        parts = weights * shares
        loss = entropy(parts, float(spec.get("label_smoothing") or 0.0))
        # Rows that count for more make it jump further.
        loss_luck = LUCK / rows.count * float((weights * parts).sum() / parts.sum())
    return Guess(share, "the most frequent class", luck, loss, loss_luck)


def entropy(parts: Numbers, smoothing: float) -> float:
    """The least cross-entropy of one answer for all rows, of classes with these parts (classes,).

    The parts are shares, or with weights of classes these times them: the training's loss is the
    mean over rows of weight times loss.
    """
    total = float(parts.sum())
    parts = (1 - smoothing) * parts + smoothing * total / len(parts)
    parts = parts[parts > 0]
    return float(-(parts * np.log(parts / total)).sum())


def class_weights(setting: Any, classes: list[Any]) -> Numbers:
    """The weight of each class (classes,), as `stages/training/optim/class_weights.py` has it."""
    ones = np.ones(len(classes))
    if not setting:
        return ones
    targets = np.load(PREPARED / "train/target.npy")
    of_rows = _load(PREPARED / "train/weight.npy", np.ones(len(targets)))
    counts = np.bincount(targets, of_rows, minlength=len(classes))
    if isinstance(setting, str):
        weights = np.divide(1.0, counts, out=ones.copy(), where=counts > 0)
    else:
        weights = np.array([float(setting.get(yaml_text(name), 1.0)) for name in classes])
    mean = float((weights * counts).sum() / counts.sum())
    return np.where(counts > 0, weights / mean, ones)


def _guess_value(rows: Judged, trained: Mapping[str, Any]) -> Guess:
    """That of values: the mean, or for another loss the one that makes it least."""
    moments = read_json(PREPARED / "statistics.json").get("target") or {}
    target = np.asarray(rows.target, np.float64)
    if moments.get("transform") == "log1p":
        target = np.expm1(target * moments["deviation"] + moments["mean"])
        moments = {}
    apart = rows.mean(np.square(target - np.average(target, weights=rows.weight)), math.sqrt)
    metric = apart * float(moments.get("deviation", 1.0))
    share = min(1.0, LUCK / rows.count)
    loss = find_least_loss(rows, trained.get("loss") or {})
    loss_luck = 0.0 if loss is None else 2 * share * loss
    return Guess(metric, "the mean of all rows", share * metric, loss, loss_luck)


def find_least_loss(rows: Judged, spec: Mapping[str, Any]) -> float | None:
    """The least mean loss of one value for all rows; None of a loss that is not known here."""
    from scipy.optimize import minimize_scalar

    of_error = losses_of_error(spec).get(str(spec.get("name")))
    if of_error is None:
        return None
    target = np.asarray(rows.target, np.float64)
    ends = (float(target.min()), float(target.max()))
    if ends[0] == ends[1]:
        return 0.0
    # Each of them is convex, so there is one least.
    found = minimize_scalar(lambda value: rows.mean(of_error(target - value)), bounds=ends)
    return float(found.fun)


def losses_of_error(spec: Mapping[str, Any]) -> dict[str, Callable[[Numbers], Numbers]]:
    """The losses that are known here, of errors (rows,): target less prediction."""
    delta, beta = float(spec.get("delta", 1.0)), float(spec.get("beta", 1.0))
    q = float(spec.get("q", 0.5))

    def huber(error: Numbers, bend: float) -> Numbers:
        far = np.abs(error)
        return np.where(far < bend, error**2 / 2, bend * (far - bend / 2))

    return {
        "MSELoss": np.square,
        "L1Loss": np.abs,
        "HuberLoss": lambda error: huber(error, delta),
        "SmoothL1Loss": lambda error: huber(error, beta) / beta if beta else np.abs(error),
        "quantile": lambda error: np.maximum(q * error, (q - 1) * error),
    }
