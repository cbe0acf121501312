"""Temperature and threshold: fitted as their definitions say."""

from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize_scalar
from sklearn import metrics as sk

from pipeline.params.check import find_problems
from stages.model.calibration import UNCALIBRATED, margins, predict_codes, to_probabilities
from stages.train.calibrate import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    calibrate_scores,
    choose_threshold,
    fit_temperature,
    log_loss,
)
from stages.training.compatibility import check_calibration
from stages.training.params import CalibrationParams, ThresholdMetric
from tests.conftest import ROOT
from tests.support.samples import recipe_params

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def drawn(num_rows: int = 4000, num_classes: int = 3) -> tuple[Floats, Codes]:
    """Scores whose probabilities are those by which the codes were drawn."""
    random = np.random.default_rng(num_classes)
    scores = random.normal(0, 1.5, (num_rows, num_classes))
    probabilities = to_probabilities(scores)
    codes = (random.random((num_rows, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    return scores, codes.clip(max=num_classes - 1)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_temperature_is_that_of_least_log_loss(num_classes: int) -> None:
    scores, codes = drawn(num_classes=num_classes)
    for factor in (0.3, 1.0, 4.0):
        reference = minimize_scalar(
            lambda t, wide=scores * factor: sk.log_loss(
                codes, to_probabilities(wide, t), labels=range(num_classes)
            ),
            bounds=(MIN_TEMPERATURE, MAX_TEMPERATURE),
            method="bounded",
            options={"xatol": 1e-9},
        )
        found = fit_temperature(scores * factor, codes)
        assert found == pytest.approx(reference.x, rel=1e-5)
        # Scores that are too large by a known factor are brought back.
        assert found == pytest.approx(factor, rel=0.08)
        assert log_loss(scores * factor, codes, found) == pytest.approx(reference.fun, rel=1e-9)
    assert fit_temperature(scores * 4, codes) == pytest.approx(
        4 * fit_temperature(scores, codes), rel=1e-6
    )


def test_a_temperature_has_bounds() -> None:
    codes = np.array([0, 1, 1, 0])
    right = np.eye(2)[codes]
    assert fit_temperature(right, codes) == MIN_TEMPERATURE
    assert fit_temperature(-right, codes) == MAX_TEMPERATURE
    assert fit_temperature(np.zeros((4, 2)), codes) == MAX_TEMPERATURE
    asked = CalibrationParams(temperature=True, threshold=None)
    found, (line,) = calibrate_scores(right, codes, None, asked)
    assert found.temperature == MIN_TEMPERATURE
    assert line.endswith("(the temperature is at its bound)")


REFERENCE = {
    "accuracy": sk.accuracy_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
    "f1": lambda y, p: sk.f1_score(y, p, zero_division=0.0),
    "matthews_corrcoef": sk.matthews_corrcoef,
}


@pytest.mark.parametrize("metric", get_args(ThresholdMetric))
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_threshold_is_the_best_of_all(metric: ThresholdMetric, share: float) -> None:
    random = np.random.default_rng(7)
    codes = (random.random(150) < share).astype(np.int64)
    # Few different values: ties, and several rows that change sides together.
    probabilities = (0.4 * random.random(150) + 0.4 * codes * random.random(150)).round(2)
    found = choose_threshold(probabilities, codes, metric)
    known = sorted(set(probabilities.tolist()))
    cuts = [0.5, *((a + b) / 2 for a, b in zip(known[1:], known[:-1], strict=True))]
    values = {cut: float(REFERENCE[metric](codes, probabilities > cut)) for cut in cuts}
    best = max(values.values())
    assert REFERENCE[metric](codes, probabilities > found) == pytest.approx(best, abs=1e-12)
    near = min(abs(cut - 0.5) for cut, value in values.items() if value > best - 1e-12)
    assert abs(found - 0.5) == pytest.approx(near, abs=1e-6)


def test_of_equal_thresholds_it_is_the_nearest_to_a_half() -> None:
    codes = np.array([0, 0, 1, 1])
    assert choose_threshold(np.array([0.1, 0.2, 0.8, 0.9]), codes, "f1") == 0.5
    assert choose_threshold(np.array([0.1, 0.2, 0.3, 0.4]), codes, "f1") == 0.25
    # 0.375 and 0.625 are as far, and as good: the lower.
    probabilities, codes = np.array([0.3, 0.45, 0.55, 0.7]), np.array([0, 1, 0, 1])
    assert choose_threshold(probabilities, codes, "balanced_accuracy") == 0.375
    # Rows that are equal but for rounding are not told apart.
    probabilities = np.array([0.1, 0.3 - 3e-7, 0.3, 0.9])
    assert choose_threshold(probabilities, np.array([0, 0, 1, 1]), "accuracy") == 0.5


def test_which_class_is_predicted() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.5, 0.5]])
    assert predict_codes(probabilities, None).tolist() == [0, 0, 1, 0]
    assert predict_codes(probabilities, 0.5).tolist() == [0, 0, 1, 0]
    assert predict_codes(probabilities, 0.2).tolist() == [0, 1, 1, 1]
    # A little less than `margins` says changes no prediction, a little more changes each.
    for threshold in (None, 0.2, 0.55):
        before = predict_codes(probabilities, threshold)
        way = np.where(before == 0, 1.0, -1.0)
        for little, same in ((-1e-6, True), (1e-6, False)):
            seconds = probabilities[:, 1] + way * (margins(probabilities, threshold) + little)
            moved = predict_codes(np.stack([1 - seconds, seconds], axis=1), threshold)
            assert ((moved == before) == same).all(), threshold


def test_nothing_asked_for_is_nothing_done() -> None:
    off = CalibrationParams(temperature=False, threshold=None)
    # Scores of which nothing could be made.
    scores, codes = np.zeros((2, 0)), np.zeros(2, np.int64)
    assert calibrate_scores(scores, codes, None, off) == (UNCALIBRATED, [])


@pytest.mark.parametrize(
    ("task", "classes", "keys"),
    [
        ("regression", 0, ["temperature", "threshold"]),
        ("classification", 3, ["threshold"]),
        ("classification", 2, []),
        ("classification", None, []),
    ],
)
def test_a_target_that_cannot_be_calibrated_is_told(
    task: str, classes: int | None, keys: list[str]
) -> None:
    params = CalibrationParams(temperature=True, threshold="f1")
    problems = check_calibration(params, task, classes)
    assert [p.key for p in problems] == [f"train.calibration.{key}" for key in keys]
    assert all(p.allowed in (("false",), ("null",)) for p in problems)
    off = CalibrationParams(temperature=False, threshold=None)
    assert check_calibration(off, task, classes) == []


def test_check_knows_it_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    tree = recipe_params("mlp")
    tree["train"]["calibration"] = {"temperature": True, "threshold": "acuracy"}
    (problem,) = find_problems(tree)
    assert (problem.key, problem.suggestion) == ("train.calibration.threshold", "accuracy")
    tree = recipe_params("linear_regression")
    tree["prepare"]["task"] = "regression"
    tree["train"]["calibration"] = {"temperature": True, "threshold": None}
    tree["tune"] |= {"trials": 1, "space": {"train.calibration.temperature": [True, False]}}
    keys = {problem.key for problem in find_problems(tree)}
    assert keys == {"train.calibration.temperature", "tune.space.train.calibration.temperature"}
