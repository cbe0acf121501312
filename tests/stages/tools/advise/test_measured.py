"""Intervals, metrics, suspects, curves and journals of advice, by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.commands.review.advise import read_budget
from stages.common.errors import UserError
from stages.evaluate.measure.metrics import compute_metrics
from stages.tools.advise.columns import drop_arms
from stages.tools.advise.curve import fit_curve
from stages.tools.advise.data import label_arm, leaves_out
from stages.tools.advise.labels import find_suspects
from stages.tools.advise.measure.arms import Arm
from stages.tools.advise.measure.judge import QUICK, Estimate, estimate
from stages.tools.advise.measure.rows import Change
from stages.tools.advise.measure.trainings import Journal, Outcome


def test_an_interval_holds_the_luck_of_rows_and_of_trainings() -> None:
    # Forty groups of rows whose mean gains are drawn: leaving one out moves the mean by a 39th.
    random = np.random.default_rng(0)
    groups = random.normal(0.1, 0.2, size=40)
    without = [(groups.sum() - group) / 39 for group in groups]
    found = estimate([float(groups.mean())] * 4, without)
    assert found is not None
    assert found.error == pytest.approx(groups.std(ddof=1) / math.sqrt(40))
    assert found.low < groups.mean() < found.high
    normal = 1 - 0.5 * math.erfc(found.gain / found.error / 2**0.5)
    assert found.probability == pytest.approx(normal, abs=0.01)
    wider = estimate([0.05, 0.15, 0.05, 0.15], without)
    assert wider is not None
    assert wider.high - wider.low > found.high - found.low
    # However often four folds are measured, they have learned from nearly the same rows.
    few, many = (estimate([0.0, 0.4] * num, without, num_folds=4) for num in (4, 400))
    assert few is not None
    assert many is not None
    left = (0.04 - 4 * found.error**2) / 3
    assert many.error == pytest.approx(math.sqrt(found.error**2 + left), rel=0.01)
    assert few.error > many.error
    assert estimate([0.1], without) is None
    # Where no prediction of 60 rows differs, that of another one may.
    same = estimate([0.0] * 4, [0.0] * 30, step=1 / 60)
    assert same is not None
    assert same.low == pytest.approx(-3 / 60, rel=0.5)
    assert (same.low, same.probability) == (-same.high, 0.5)


@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_metric_by_hand_is_that_of_evaluate(name: str) -> None:
    random = np.random.default_rng(3)
    weights = random.random(60)
    if name in ("rmse", "mae"):
        target, predicted = random.normal(size=60), random.normal(size=60)
        for each in (None, weights):
            known = compute_metrics([name], "regression", target, predicted, each)[name]
            assert QUICK[name](target, predicted, each) == pytest.approx(known, rel=1e-6)
        return
    # Of three classes one is neither there nor predicted.
    num_classes = 2 if name == "f1" else 3
    codes, shares = random.integers(2, size=60), random.random((60, num_classes))
    shares[:, 2:] = 1e-9
    shares /= shares.sum(axis=1, keepdims=True)
    for each in (None, weights):
        known = compute_metrics([name], "classification", codes, shares, each)[name]
        assert QUICK[name](codes, shares, each) == pytest.approx(known, rel=1e-6)


def test_rows_with_wrong_labels_are_suspects() -> None:
    random = np.random.default_rng(1)
    right = random.integers(3, size=600)
    flipped = random.random(600) < 0.1
    codes = np.where(flipped, (right + 1) % 3, right)
    scores = random.normal(size=(600, 3))
    scores[np.arange(600), right] += 4
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    found = find_suspects(shares, codes)
    assert np.isin(found.rows, np.flatnonzero(flipped)).mean() > 0.85
    assert np.isin(np.flatnonzero(flipped), found.rows).mean() > 0.85
    assert (found.likelier == right[found.rows]).mean() > 0.9
    assert (np.diff(found.margins) <= 0).all()


def test_the_curve_is_followed_beyond_its_end() -> None:
    sizes = (100, 200, 400, 800)
    values = {n: np.full(8, 0.9 - 2.0 * n**-0.5) for n in sizes}
    gain = float(values[800][0] - values[100][0])
    whole = Estimate(gain, 0.001, gain - 0.002, gain + 0.002, 1.0, 8)
    curve = fit_curve(values, whole, 0, perfect=1.0)
    assert curve.power == pytest.approx(0.5)
    ahead = 2.0 * 800**-0.5 - 2.0 * 1600**-0.5
    assert curve.doubled.gain == pytest.approx(ahead)
    assert curve.doubled.low < ahead < curve.doubled.high
    needed = curve.rows_for(ahead)
    assert needed == pytest.approx(800, abs=1)
    assert curve.rows_for(10.0) is None
    # Where nothing is sure yet, what is left of the error bounds what a doubling may bring.
    unsure = Estimate(0.001, 0.002, -0.003, 0.005, 0.7, 8)
    flat = fit_curve({n: np.full(8, 0.6 + n / 1e6) for n in sizes}, unsure, 0, perfect=1.0)
    assert flat.doubled.high == pytest.approx(0.4, abs=1e-3)
    assert curve.doubled.high < 0.05


def test_a_journal_that_was_cut_short_is_read_again_and_again(tmp_path: Path) -> None:
    scores = np.zeros((3, 2), np.float32)
    journal = Journal(tmp_path)
    journal.add("one", Outcome(scores, 1.0, 0.5, 0.6))
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"name": "two", "sec')
    Journal(tmp_path).add("three", Outcome(None, 2.0, failure="it has no room"))
    again = Journal(tmp_path)
    assert list(again.outcomes) == ["one", "three"]
    known = again.outcomes["one"].scores
    assert known is not None
    assert np.array_equal(known, scores)
    assert again.outcomes["three"].failure == "it has no room"
    assert again.seconds == 3.0


def test_what_leaves_a_column_out_is_told_from_what_leaves_rows_out() -> None:
    of_rows = label_arm(np.array([3, 5]))
    assert not leaves_out(of_rows, "x")
    assert leaves_out(Arm("data", "column x", "", {}, Change(column="x")), "x")
    # Of as many other rows it is another change.
    assert of_rows.name != label_arm(np.array([3, 6])).name


def test_a_budget_is_a_time() -> None:
    assert [read_budget(text) for text in ("90s", "10m", "1.5h")] == [90, 600, 5400]
    for text in ("10", "0m", "ten", "5 m", "-1m"):
        with pytest.raises(UserError, match="such as 90s"):
            read_budget(text)


def test_a_column_without_a_name_is_left_out_by_a_line_that_yaml_reads() -> None:
    titles = [arm.title for arm in drop_arms(["", "zip"], {})]
    assert titles == ['prepare.columns: {"": exclude}', "prepare.columns: {zip: exclude}"]
