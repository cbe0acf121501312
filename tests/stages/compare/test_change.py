"""The statement on a change: right as often as it says, whatever moves rows and seeds."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import ttest_ind

from stages.compare.mean_difference import MIN_REPLICAS, find_mean_differences, judge
from stages.evaluate.measure.bootstrap import WEIGHTS

ROWS, RESAMPLES, TIMES = 200, 300, 400
# More than that many of `TIMES`, at 5 % each, come in one of a thousand cases.
MOST_ALARMS = 35


def test_without_rows_it_is_welchs_test() -> None:
    before, after = np.array([0.90, 0.93, 0.91]), np.array([0.95, 0.96, 0.99, 0.94])
    values = np.concatenate([before, after])
    found = judge(values, np.repeat(values[:, None], 50, axis=1), len(before))
    welch = ttest_ind(after, before, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), abs=1e-6)
    assert (found.rows, found.shared) == pytest.approx((0, 0), abs=1e-30)


def test_without_seeds_it_is_the_bootstraps_deviation() -> None:
    random = np.random.default_rng(0)
    luck = random.normal(0, 0.01, 1000)
    drawn = np.concatenate([np.tile(0.5 + luck, (3, 1)), np.tile(0.6 - luck, (3, 1))])
    found = judge(np.repeat([0.5, 0.6], 3), drawn, 3)
    half = 1.959964 * (2 * luck).std(ddof=1)
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half), rel=1e-5)
    assert found.degrees is None
    assert (found.seeds, found.shared) == pytest.approx((0, 0), abs=1e-30)


def test_what_seeds_and_rows_share_counts_once() -> None:
    # Each replica moves on its own with the rows, and is off by as much on these.
    random = np.random.default_rng(0)
    values = np.array([0.49, 0.50, 0.51, 0.59, 0.60, 0.61])
    drawn = values[:, None] + random.normal(0, 0.01, (6, 4000))
    found = judge(values, drawn, 3)
    once = 2 * 0.01**2 / 3
    assert found.rows == pytest.approx(once, rel=0.1)
    assert found.seeds == pytest.approx(once, rel=1e-6)
    assert found.shared == pytest.approx(once, rel=0.1)
    assert found.high - found.value == pytest.approx(2.776 * once**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("of_rows", "of_seeds", "of_both", "truth"),
    [
        (0.0, 0.0, 1.0, 0.0),
        (0.0, 0.1, 1.0, 0.0),
        (0.0, 0.2, 0.5, 0.0),
        (1.0, 0.05, 0.5, 0.2),
    ],
)
def test_the_truth_lies_inside_as_often_as_it_should(
    of_rows: float, of_seeds: float, of_both: float, truth: float
) -> None:
    """Scores of rows with a luck of the row, of the seed, and of both; their mean is the metric."""
    random = np.random.default_rng(1)
    outside = 0
    for _ in range(TIMES):
        of_change = truth + random.normal(0, of_rows, ROWS)
        scores = np.array(
            [
                of_change * side + random.normal(0, of_seeds) + random.normal(0, of_both, ROWS)
                for side in (0, 1)
                for _ in range(MIN_REPLICAS)
            ]
        )
        draws = random.integers(len(WEIGHTS), size=(RESAMPLES, ROWS), dtype=np.uint16)
        weights = WEIGHTS[draws].astype(float)
        drawn = (scores @ weights.T) / weights.sum(axis=1)
        found = judge(scores.mean(axis=1), drawn, MIN_REPLICAS)
        outside += not found.low <= truth <= found.high
    assert outside <= MOST_ALARMS
    # Where the seeds' own luck is what matters it is not needlessly wide either.
    assert outside >= TIMES * 0.02 or of_seeds == 0


def test_it_is_found_from_predictions_and_left_out_where_rows_say_nothing() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=300)

    def side(error: float) -> list[npt.NDArray[np.float64]]:
        return [target + random.normal(0, error, 300) for _ in range(3)]

    found = find_mean_differences(
        ["rmse", "max_error"], "regression", target, side(1.0), side(0.5), 200
    )
    assert list(found) == ["rmse"]
    assert found["rmse"].value == pytest.approx(-0.5, abs=0.1)
    assert found["rmse"].high < 0


def test_the_same_trainings_on_both_sides_differ_in_nothing() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=50)
    side = [target + random.normal(0, 1, 50) for _ in range(MIN_REPLICAS)]
    again = [predicted.copy() for predicted in side]
    found = find_mean_differences(["rmse", "mae"], "regression", target, side, again, 100)
    assert {(each.value, each.low, each.high) for each in found.values()} == {(0.0, 0.0, 0.0)}
    again[2][0] += 1e-9
    found = find_mean_differences(["rmse"], "regression", target, side, again, 100)
    assert found["rmse"].low < 0 < found["rmse"].high
