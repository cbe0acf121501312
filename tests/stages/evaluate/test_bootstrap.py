"""Intervals: each resample is its rows repeated; the intervals hold what they are said to hold."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest, poisson

from stages.evaluate.measure.bootstrap import (
    FREQUENCIES,
    draw_weights,
    find_intervals,
    paired_differences,
    wilson,
)
from stages.evaluate.measure.metrics import LESS_IS_BETTER, metrics_of
from stages.evaluate.measure.predictions import Classified
from stages.evaluate.measure.weighted_metrics import Floats, Weights, weighted_metric
from tests.stages.evaluate.measured import guesses, names_of

Codes = npt.NDArray[np.int64]
CLASSIFICATION, REGRESSION = metrics_of("classification"), metrics_of("regression")


def measured(num_rows: int = 80) -> tuple[Floats, Floats]:
    """Values and predictions of them, in units of their own, with ties among the errors."""
    random = np.random.default_rng(0)
    values = random.normal(50, 10, num_rows).round(1)
    return values, values + random.normal(1, 4, num_rows).round()


def some_weights(num_rows: int, sets: int = 20) -> Weights:
    return np.concatenate(list(draw_weights(num_rows, sets)))


def on_repeated(
    metric: Callable[..., float], weights: Weights, target: npt.NDArray, predicted: Floats
) -> list[float]:
    """The metric, as scikit-learn has it, on the rows that each set of weights draws."""
    times = weights.astype(np.int64)
    return [metric(np.repeat(target, t), np.repeat(predicted, t, axis=0)) for t in times]


@pytest.mark.parametrize(
    ("name", "num_classes"), [(n, k) for k in (2, 4) for n in names_of(k) if n != "ece"]
)
def test_a_weighted_metric_is_that_of_rows_repeated(name: str, num_classes: int) -> None:
    target, probabilities = guesses(num_classes)
    weights = some_weights(len(target))
    weighted = weighted_metric(name, "classification", target, probabilities)
    assert weighted is not None
    expected = on_repeated(CLASSIFICATION[name], weights, target, probabilities)
    np.testing.assert_allclose(weighted(weights), expected, rtol=1e-9)


@pytest.mark.parametrize("name", sorted(set(CLASSIFICATION) - {"ece"}))
def test_a_weighted_metric_follows_the_class_that_is_predicted(name: str) -> None:
    target, probabilities = guesses(2)
    predicted = Classified((probabilities[:, 1] > 0.2).astype(np.int64), probabilities)
    weighted = weighted_metric(name, "classification", target, predicted)
    assert weighted is not None
    once = weighted(np.ones((1, len(target)), np.uint8))[0]
    assert once == pytest.approx(CLASSIFICATION[name](target, predicted), rel=1e-9)
    (twice,) = weighted(np.arange(len(target), dtype=np.uint8)[None] % 3)
    rows = np.repeat(np.arange(len(target)), np.arange(len(target)) % 3)
    assert twice == pytest.approx(CLASSIFICATION[name](target[rows], predicted[rows]), rel=1e-9)


@pytest.mark.parametrize("name", sorted(set(REGRESSION) - {"max_error"}))
def test_so_is_one_of_values(name: str) -> None:
    target, predicted = measured()
    weights = some_weights(len(target))
    weighted = weighted_metric(name, "regression", target, predicted)
    assert weighted is not None
    expected = on_repeated(REGRESSION[name], weights, target, predicted)
    np.testing.assert_allclose(weighted(weights), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["f1_macro", "precision_macro", "recall_macro", "balanced_accuracy", "f1_weighted"]
)
def test_a_class_that_a_resample_lost_does_not_count_in_it(name: str) -> None:
    target = np.array([0, 0, 1, 1, 2, 2])
    probabilities = np.eye(3)[[0, 1, 1, 1, 2, 0]] * 0.7 + 0.1
    weights = np.array([[1, 2, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [3, 0, 1, 1, 0, 0]], np.uint8)
    weighted = weighted_metric(name, "classification", target, probabilities)
    assert weighted is not None
    expected = on_repeated(CLASSIFICATION[name], weights, target, probabilities)
    np.testing.assert_allclose(weighted(weights), expected)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_a_ranking_without_hits_is_undefined(name: str) -> None:
    target, probabilities = np.array([0, 1, 1]), np.array([[0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])
    weighted = weighted_metric(name, "classification", target, probabilities)
    assert weighted is not None
    assert np.isnan(weighted(np.array([[2, 0, 0], [1, 1, 1]], np.uint8))).tolist() == [True, False]


def test_weights_are_poissons_and_always_the_same() -> None:
    weights = some_weights(1000, 500)
    assert weights.mean() == pytest.approx(1, abs=0.005)
    assert weights.var() == pytest.approx(1, abs=0.01)
    assert sum(FREQUENCIES) == sum(k * f for k, f in enumerate(FREQUENCIES)) == 1 << 16
    expected = poisson.pmf(np.arange(len(FREQUENCIES)), 1)
    np.testing.assert_allclose(np.array(FREQUENCIES) / (1 << 16), expected, atol=2e-5)
    assert (weights == some_weights(1000, 500)).all()
    # Neither along the rows nor from one resample to the next.
    assert abs(np.corrcoef(weights[:, 0], weights[:, 1])[0, 1]) < 0.15
    assert abs(np.corrcoef(weights[0], weights[1])[0, 1]) < 0.15


def test_an_interval_is_the_quantiles_of_the_resamples() -> None:
    target, probabilities = guesses(2)
    weights = some_weights(len(target), 200)
    found = find_intervals(["roc_auc"], "classification", target, probabilities, 200)["roc_auc"]
    drawn = on_repeated(CLASSIFICATION["roc_auc"], weights, target, probabilities)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.method == "bootstrap"


def test_what_the_rows_cannot_tell_has_no_interval() -> None:
    values = find_intervals(["max_error", "mae"], "regression", *measured(), 100)
    assert values["max_error"].method is values["max_error"].low is None
    assert values["mae"].method == "bootstrap"
    assert find_intervals(["ece"], "classification", *guesses(2), 100)["ece"].low is None
    # Nothing is wrong: all resamples are equal, but the model is not certain to be right.
    target = np.array([0, 1] * 20)
    perfect = find_intervals(["f1_macro", "accuracy"], "classification", target, np.eye(2)[target])
    assert perfect["f1_macro"].low is None
    assert perfect["accuracy"].method == "wilson"
    assert perfect["accuracy"].low == pytest.approx(0.912, abs=0.001)
    assert perfect["accuracy"].high == 1


@pytest.mark.parametrize(("hits", "rows"), [(0, 5), (1, 5), (339, 340), (700, 1000)])
def test_the_interval_of_a_share_is_wilsons(hits: int, rows: int) -> None:
    expected = binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson(hits / rows, rows) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_a_difference_has_the_same_weights_on_both_sides() -> None:
    target, before = guesses(2)
    after = before * 0.9 + 0.1 * np.eye(2)[target]
    weights = some_weights(len(target), 200)
    found = paired_differences(["log_loss"], "classification", target, before, after, 200)
    drawn = [
        np.subtract(
            *(on_repeated(CLASSIFICATION["log_loss"], w[None], target, p) for p in (after, before))
        )[0]
        for w in weights
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    difference = found["log_loss"]
    assert (difference.low, difference.high) == pytest.approx((low, high), rel=1e-5)
    assert low < difference.value < high < 0


def test_equal_predictions_differ_by_nothing() -> None:
    target, probabilities = guesses(4)
    names = ["accuracy", "roc_auc", "f1_macro"]
    for found in paired_differences(
        names, "classification", target, probabilities, probabilities
    ).values():
        assert (found.value, found.low, found.high) == (0, 0, 0)


def test_the_names_of_which_less_is_better_are_metrics() -> None:
    assert set(LESS_IS_BETTER) <= {*CLASSIFICATION, *REGRESSION}


def draw_classes(random: np.random.Generator, num_rows: int) -> tuple[Codes, Floats]:
    """Rows of two classes, with probabilities that are right about themselves."""
    score = random.normal(-0.5, 1.5, num_rows)
    chance = 1 / (1 + np.exp(-score))
    target = (random.random(num_rows) < chance).astype(np.int64)
    return target, np.stack([1 - chance, chance], axis=1)


def draw_values(random: np.random.Generator, num_rows: int) -> tuple[Floats, Floats]:
    predicted = random.normal(size=num_rows)
    return predicted + 0.5 * random.normal(size=num_rows), predicted


@pytest.mark.parametrize(
    ("task", "draw", "names"),
    [
        ("classification", draw_classes, ["accuracy", "f1_macro", "log_loss", "brier", "roc_auc"]),
        ("regression", draw_values, ["rmse", "mae", "median_absolute_error", "r2"]),
    ],
)
def test_about_95_of_100_intervals_hold_the_true_value(
    task: str, draw: Callable[..., tuple[npt.NDArray, Floats]], names: list[str]
) -> None:
    trials = 200
    random = np.random.default_rng(0)
    known = metrics_of(task)
    true = {name: known[name](*draw(random, 300_000)) for name in names}
    held = dict.fromkeys(names, 0)
    for _ in range(trials):
        found = find_intervals(names, task, *draw(random, 200), 200)
        for name in names:
            low, high = found[name].low, found[name].high
            assert low is not None
            assert high is not None
            held[name] += low <= true[name] <= high
    # By chance alone, 200 trials are off by up to 4.6 points; 200 resamples cost another.
    slack = 3 * math.sqrt(0.95 * 0.05 / trials) + 0.015
    for name, count in held.items():
        assert abs(count / trials - 0.95) < slack, name
