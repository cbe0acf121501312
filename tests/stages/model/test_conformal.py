"""Intervals around values and sets of classes, and how many targets they hold."""

from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.model.calibration import UNCALIBRATED, Calibration, to_probabilities
from stages.model.conformal import Conformal, find_quantile, read_conformal


def write_validation(folder: Path, **arrays: object) -> Path:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(array))
    return folder


def test_the_quantile_is_the_one_of_the_theorem() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, 20.0))
    # 19 rows: number ceil(20 * 0.9) = 18 of the ordered ones.
    assert find_quantile(values, 0.9) == 18.0
    assert find_quantile(values, 0.95) == 19.0
    assert find_quantile(values, 0.5) == 10.0
    # A row of weight 2 counts as two rows, the new one as their mean.
    weighted = find_quantile(np.array([1.0, 2.0, 3.0]), 0.5, np.array([2.0, 2.0, 2.0]))
    assert weighted == find_quantile(np.array([1.0, 2.0, 3.0]), 0.5) == 2.0
    assert find_quantile(np.array([1.0, 2.0, 3.0]), 0.5, np.array([9.0, 1.0, 1.0])) == 1.0


def test_too_few_rows_are_told_with_what_they_allow() -> None:
    with pytest.raises(UserError) as caught:
        find_quantile(np.arange(8.0), 0.9)
    problem = caught.value.problems[0]
    assert problem.key == "evaluate.coverage"
    assert "takes 9 validation rows or more, and there are 8" in problem.message
    assert problem.allowed == ("at most 0.888", "null")
    assert find_quantile(np.arange(9.0), 0.9) == 8.0


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_values_are_covered_as_promised_over_100_splits(tmp_path: Path, coverage: float) -> None:
    random = np.random.default_rng(1)
    num_rows, num_new, shares = 60, 400, []
    for _ in range(100):
        scores = random.normal(size=(num_rows + num_new, 1))
        # Errors of another form, and larger for larger predictions.
        target = scores[:, 0] + random.standard_t(3, len(scores)) * (1 + np.abs(scores[:, 0]))
        write_validation(
            tmp_path, scores=scores[:num_rows].astype(np.float32), target=target[:num_rows]
        )
        found = read_conformal(tmp_path, coverage, UNCALIBRATED, 2.0)
        low, high = found.interval(scores[num_rows:, 0] * 2.0)
        new = target[num_rows:] * 2.0
        shares.append(float(((low <= new) & (new <= high)).mean()))
    expected = np.ceil((num_rows + 1) * coverage) / (num_rows + 1)
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - expected) < 3 * error


def test_classes_are_covered_as_promised_over_100_splits(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    shares, calibration = [], Calibration(temperature=1.7)
    for _ in range(100):
        scores = random.normal(size=(460, 4)) * 1.5
        # Noisy: the likeliest class is right for about half of the rows.
        target = (scores + random.gumbel(size=scores.shape) * 1.5).argmax(axis=1)
        write_validation(tmp_path, scores=scores[:60].astype(np.float32), target=target[:60])
        found = read_conformal(tmp_path, 0.8, calibration, None)
        powers = np.exp(scores[60:] / 1.7)
        inside = found.contains(powers / powers.sum(axis=1, keepdims=True), None)
        assert inside.any(axis=1).all()
        shares.append(float(inside[np.arange(400), target[60:]].mean()))
    error = np.std(shares, ddof=1) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - np.ceil(61 * 0.8) / 61) < 3 * error


def test_the_predicted_class_is_in_its_set() -> None:
    found = Conformal(coverage=0.5, bound=0.8)
    probabilities = np.array([[0.3, 0.7], [0.85, 0.15]])
    assert found.contains(probabilities, None).tolist() == [[False, True], [True, False]]
    # With a threshold the second class is predicted where it is not the likeliest.
    assert found.contains(probabilities, 0.1).tolist() == [[False, True], [True, True]]


def test_rows_of_weight_0_tell_nothing() -> None:
    weights = np.zeros(100)
    weights[:12] = 1.0
    found = find_quantile(np.arange(100.0), 0.9, weights)
    assert found == find_quantile(np.arange(12.0), 0.9) == 11.0
    weights[5:] = 0.0
    with pytest.raises(UserError, match="there are 5"):
        find_quantile(np.arange(100.0), 0.9, weights)


@pytest.mark.parametrize("num_rows", [2, 5, 8, 11])
def test_what_is_said_to_be_allowed_is(num_rows: int) -> None:
    with pytest.raises(UserError) as caught:
        find_quantile(np.arange(float(num_rows)), 0.95)
    largest = float(caught.value.problems[0].allowed[0].removeprefix("at most "))
    assert find_quantile(np.arange(float(num_rows)), largest) == num_rows - 1


def test_rounding_leaves_rows_at_the_bound_in_their_sets(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    scores = random.normal(size=(60, 3)).astype(np.float32)
    target = random.integers(0, 3, 60)
    write_validation(tmp_path, scores=scores, target=target)
    found = read_conformal(tmp_path, 0.8, UNCALIBRATED, None)
    exact = to_probabilities(scores.astype(np.float64))
    of_target = exact[np.arange(60), target]
    at_bound = int(np.abs(of_target - found.bound).argmin())
    assert found.bound < of_target[at_bound] < found.bound * 1.0001
    for moved in (-2e-6, 0.0, 2e-6):
        rounded = to_probabilities(scores + moved * np.eye(3)[target])
        assert found.contains(rounded, None)[at_bound, target[at_bound]]
