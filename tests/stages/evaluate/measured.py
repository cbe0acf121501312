"""Guesses of classes, and the metrics by their formulas, written out here."""

import math

import numpy as np
import numpy.typing as npt

from stages.evaluate.measure.metrics import metrics_of

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
CLASSIFICATION, REGRESSION = metrics_of("classification"), metrics_of("regression")


# Those of the second of two classes.
OF_TWO = {"f1", "precision", "recall", "ks"}


def names_of(num_classes: int) -> list[str]:
    """The metrics that a target of so many classes has."""
    return [name for name in CLASSIFICATION if num_classes == 2 or name not in OF_TWO]


def guesses(num_classes: int, num_rows: int = 80) -> tuple[Codes, Floats]:
    """Class codes, and probabilities that are right more often than not, with ties."""
    random = np.random.default_rng(num_classes)
    target = random.integers(num_classes, size=num_rows)
    scores = random.normal(size=(num_rows, num_classes)) + 1.5 * np.eye(num_classes)[target]
    probabilities = np.exp(scores.round(1))
    return target, probabilities / probabilities.sum(axis=1, keepdims=True)


def confusion(target: Codes, probabilities: Floats) -> Floats:
    """Rows: what it is; columns: what it was taken for."""
    table = np.zeros((probabilities.shape[1], probabilities.shape[1]))
    for actual, row in zip(target, probabilities, strict=True):
        table[actual, row.argmax()] += 1
    return table


def area_under_roc(hits: npt.NDArray[np.bool_], scores: Floats) -> float:
    """The share of pairs in which the hit has the higher score; ties count half."""
    above = scores[hits][:, None] > scores[~hits][None]
    level = scores[hits][:, None] == scores[~hits][None]
    return float((above + 0.5 * level).mean())


def average_precision(hits: npt.NDArray[np.bool_], scores: Floats) -> float:
    """Precision at each threshold, weighed by the recall that it adds."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        recall = hits[chosen].sum() / hits.sum()
        total += (recall - recall_before) * hits[chosen].mean()
        recall_before = recall
    return total


def calibration_error(target: Codes, probabilities: Floats) -> float:
    """The distance of what was said from what came, in each of 15 bins; rows count equally."""
    said, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == target
    bins = [(said >= k / 15) & (said < (k + 1) / 15 if k < 14 else True) for k in range(15)]
    return sum(abs((said[b] - right[b]).sum()) for b in bins) / len(said)


def classification_by_hand(target: Codes, probabilities: Floats) -> dict[str, float]:
    table = confusion(target, probabilities)
    right, actual, taken, n = table.diagonal(), table.sum(1), table.sum(0), table.sum()
    recall, precision = right / actual, right / taken
    f1 = 2 * right / (actual + taken)
    agreement, by_chance = right.sum() / n, (actual * taken).sum() / n**2
    covariance = right.sum() * n - (actual * taken).sum()
    spread = math.sqrt(n**2 - (taken**2).sum()) * math.sqrt(n**2 - (actual**2).sum())
    one_hot = np.eye(probabilities.shape[1])[target]
    # Of two classes the second is the one that is asked for; of more, the mean over all.
    asked = [1] if probabilities.shape[1] == 2 else list(range(probabilities.shape[1]))
    squares = ((one_hot - probabilities) ** 2).sum(axis=1)
    of_two = {"f1": f1[1], "precision": precision[1], "recall": recall[1]}
    score = probabilities[:, 1]
    below = [[(score[target == k] <= at).mean() for at in score] for k in (0, 1)]
    of_two["ks"] = np.abs(np.subtract(*below)).max()
    return {
        **(of_two if len(table) == 2 else {}),
        "f1_micro": agreement,
        "accuracy": agreement,
        "balanced_accuracy": recall.mean(),
        "f1_macro": f1.mean(),
        "f1_weighted": (f1 * actual).sum() / n,
        "precision_macro": precision.mean(),
        "recall_macro": recall.mean(),
        "matthews_corrcoef": covariance / spread,
        "cohen_kappa": (agreement - by_chance) / (1 - by_chance),
        "log_loss": -np.log(probabilities[np.arange(len(target)), target]).mean(),
        "brier": squares.mean() / (2 if probabilities.shape[1] == 2 else 1),
        "ece": calibration_error(target, probabilities),
        "roc_auc": np.mean([area_under_roc(target == c, probabilities[:, c]) for c in asked]),
        "average_precision": np.mean(
            [average_precision(target == c, probabilities[:, c]) for c in asked]
        ),
    }


def regression_by_hand(values: Floats, predicted: Floats) -> dict[str, float]:
    error = values - predicted
    around_mean = ((values - values.mean()) ** 2).sum()
    return {
        "rmse": math.sqrt((error**2).mean()),
        "mae": np.abs(error).mean(),
        "median_absolute_error": np.median(np.abs(error)),
        "max_error": np.abs(error).max(),
        **{
            f"pinball_{q:02}": np.where(error > 0, q * error, (q - 100) * error).mean() / 100
            for q in (5, 10, 25, 50, 75, 90, 95)
        },
        "wape": np.abs(error).sum() / np.abs(values).sum(),
        "mape": (np.abs(error) / np.abs(values)).mean(),
        "r2": 1 - (error**2).sum() / around_mean,
        "explained_variance": 1 - ((error - error.mean()) ** 2).sum() / around_mean,
    }
