"""Weights of test rows: a row of weight n is n rows, in every metric; intervals know it is not."""

import re

import numpy as np
import polars as pl
import pytest

from stages.common.errors import UserError
from stages.compare.compare import compare
from stages.evaluate.measure import metrics
from stages.evaluate.measure.bootstrap import Interval, find_intervals, paired_differences, wilson
from stages.evaluate.measure.metrics import compute_metrics, metrics_of
from stages.evaluate.measure.row_weights import count_equal, scale
from stages.evaluate.measure.weighted_metrics import Floats, weighted_metric
from stages.evaluate.outputs.residuals import mean_residual
from stages.evaluate.outputs.slices import measure_slices
from stages.features.schema import Schema, Target
from tests.stages.evaluate.measured import guesses, names_of


def copies(num_rows: int) -> Floats:
    """Whole numbers, 0 among them."""
    return np.random.default_rng(2).integers(0, 4, num_rows).astype(np.float64)


def ends(interval: Interval) -> list[float]:
    return [end for end in (interval.value, interval.low, interval.high) if end is not None]


@pytest.mark.parametrize("num_classes", [2, 4])
def test_a_metric_of_classes_is_that_of_rows_repeated(num_classes: int) -> None:
    target, probabilities = guesses(num_classes)
    weights = copies(len(target))
    rows = np.repeat(np.arange(len(target)), weights.astype(np.int64))
    names = names_of(num_classes)
    expected = compute_metrics(names, "classification", target[rows], probabilities[rows])
    # Whatever the unit, however large or small.
    for unit in (1.0, 3e-200, 7e200):
        weighted = scale(weights * unit)
        found = compute_metrics(names, "classification", target, probabilities, weighted)
        assert found == pytest.approx(expected, rel=1e-6)
        for name in set(names) - {"ece"}:
            function = weighted_metric(name, "classification", target, probabilities, weighted)
            assert function is not None
            (value,) = function(np.ones((1, len(target)), np.uint8))
            assert value == pytest.approx(expected[name], rel=1e-6)


@pytest.mark.parametrize("weights", [copies(80), np.arange(80.0) % 2])
def test_so_is_one_of_values(weights: Floats) -> None:
    random = np.random.default_rng(0)
    target = random.normal(50, 10, 80).round(1)
    predicted = target + random.normal(1, 4, 80).round()
    rows = np.repeat(np.arange(80), weights.astype(np.int64))
    names = list(metrics_of("regression"))
    expected = compute_metrics(names, "regression", target[rows], predicted[rows])
    assert compute_metrics(names, "regression", target, predicted, weights) == expected
    for name in set(names) - {"max_error"}:
        function = weighted_metric(name, "regression", target, predicted, weights)
        assert function is not None
        assert function(np.ones((1, 80), np.uint8))[0] == pytest.approx(expected[name], rel=1e-6)


def test_equal_weights_change_neither_a_metric_nor_its_interval() -> None:
    target, probabilities = guesses(2)
    names = list(metrics_of("classification"))
    plain = find_intervals(names, "classification", target, probabilities, 100)
    ones = np.full(len(target), 0.25)
    same = find_intervals(names, "classification", target, probabilities, 100, weights=ones)
    for name, interval in plain.items():
        assert ends(same[name]) == pytest.approx(ends(interval), rel=1e-6)


def test_rows_that_do_not_count_change_no_interval_and_unequal_ones_widen_it() -> None:
    target, probabilities = guesses(2)
    half = np.arange(len(target)) < len(target) // 2
    names = ["accuracy", "log_loss", "roc_auc"]
    alone = find_intervals(names, "classification", target[half], probabilities[half], 100)
    found = find_intervals(names, "classification", target, probabilities, 100, weights=half * 1.0)
    assert found == alone
    weights = np.where(half, 9.0, 1.0)
    one = find_intervals(["accuracy"], "classification", target, probabilities, 100, weights)
    num_equal = weights.sum() ** 2 / (weights**2).sum()
    assert count_equal(len(target), weights) == pytest.approx(num_equal)
    accuracy = one["accuracy"]
    assert (accuracy.low, accuracy.high) == wilson(accuracy.value, num_equal)
    change = paired_differences(
        ["log_loss"], "classification", target, probabilities, probabilities, 50, weights
    )["log_loss"]
    assert (change.value, change.low, change.high) == (0, 0, 0)


def test_a_slice_has_the_rows_that_count() -> None:
    weights = np.array([2.0, 0.0, 1.0, 0.0, 0.0])
    target, predicted = np.array([1.0, 9, 4, 9, 9]), np.array([2.0, 9, 2, 0, 0])
    schema = Schema(key=None, features=[], target=Target(name="y", task="regression"))
    parts = [("town", "Oslo", np.array([0, 1, 2])), ("town", "Bergen", np.array([3, 4]))]
    (found,) = measure_slices("mae", schema, parts, target, predicted, weights)
    assert (found.label, found.rows, found.metric.value) == ("Oslo", 2, pytest.approx(4 / 3))
    assert found.residual is not None
    assert found.residual.value == 0
    residuals = np.random.default_rng(0).normal(size=50)
    equal = mean_residual(residuals, np.full(50, 3.0))
    assert ends(equal) == pytest.approx(ends(mean_residual(residuals)), rel=1e-6)


def test_a_metric_of_ones_own_that_takes_no_weights_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mine(target: Floats, predicted: Floats) -> float:
        return float((target - predicted).max())

    known = metrics_of("regression") | {"mine": mine}
    monkeypatch.setattr(metrics, "metrics_of", lambda _: known)
    rows = np.arange(3.0), np.ones(3)
    assert compute_metrics(["mae", "mine"], "regression", *rows)["mine"] == 1
    with pytest.raises(UserError, match=re.escape("mine takes no weights of rows")) as caught:
        compute_metrics(["mae", "mine"], "regression", *rows, np.ones(3))
    assert [problem.key for problem in caught.value.problems] == ["evaluate.metrics.1"]


def test_a_comparison_weighs_both_sides_as_the_rows_count_after() -> None:
    number = np.arange(100)
    weights = np.where(number < 10, 10.0, 1.0)

    def side(right: np.ndarray, **weight: Floats) -> pl.DataFrame:
        codes = np.where(right, 1, 0)
        return pl.DataFrame(
            {
                "id": number,
                "target": ["b"] * 100,
                **weight,
                "prediction": np.array(["a", "b"])[codes],
                "probability_a": 0.9 - 0.8 * codes,
                "probability_b": 0.1 + 0.8 * codes,
            }
        )

    before, after = number >= 10, number < 95
    shuffled = side(after, weight=weights).sample(fraction=1, shuffle=True, seed=0)
    for old in (side(before), side(before, weight=weights[::-1].copy())):
        found = compare(old, shuffled, ["accuracy"])["metrics"]["accuracy"]
        assert (found["before"], found["after"]) == pytest.approx((90 / 190, 185 / 190), rel=1e-6)
        assert found["mark"] == "better"
    plain = compare(shuffled, side(after), ["accuracy"])["metrics"]["accuracy"]
    assert plain["before"] == plain["after"] == 0.95
    nothing = side(after, weight=np.zeros(100))
    assert "all weigh 0" in compare(side(before), nothing, ["accuracy"])["why_not"]
