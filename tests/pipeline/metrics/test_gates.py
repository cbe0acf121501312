"""Gates: on values, and on the difference to another revision."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.metrics.gates import (
    Difference,
    Verdict,
    difference_of,
    judge,
    judge_differences,
    judge_values,
    overall,
)
from pipeline.metrics.metrics import format_value
from stages.common.config import validate
from stages.evaluate.measure.bootstrap import paired_differences
from stages.evaluate.params import Gate


def gate(**bounds: float) -> dict[str, Gate]:
    return {"accuracy": validate(Gate, bounds, at="evaluate.gates.accuracy")}


def difference(low: float, value: float, high: float, *, less: bool = False) -> Difference:
    return Difference(value, low, high, num_rows=400, less_is_better=less)


@pytest.mark.parametrize(
    ("low", "value", "high", "result"),
    [
        (-0.001, 0.01, 0.02, "pass"),
        (-0.002, 0.0, 0.002, "pass"),
        (0.0, 0.0, 0.0, "pass"),
        (-0.03, -0.02, -0.0021, "fail"),
        (-0.03, -0.02, -0.002, "inconclusive"),
        (-0.01, 0.0, 0.01, "inconclusive"),
        (-0.0021, 0.01, 0.02, "inconclusive"),
    ],
)
def test_the_interval_decides(low: float, value: float, high: float, result: str) -> None:
    assert judge("accuracy", 0.9, 0.002, difference(low, value, high)).result == result
    # A loss of the same size: its good side is the other one.
    mirrored = difference(-high, -value, -low, less=True)
    verdict = judge("log_loss", 0.9, 0.002, mirrored)
    assert (verdict.result, verdict.gate) == (result, "not worse by 0.002")


def test_how_many_rows_it_would_take() -> None:
    verdict = judge("accuracy", 0.9, 0.002, difference(-0.01, 0.003, 0.02))
    # (0.013 / 0.005)² times the 400 rows.
    assert verdict.num_rows == 2704
    assert "about 2,800 test rows would tell, 400 are there" in verdict.why
    # Beyond the margin it is the better half that has to shrink.
    assert judge("accuracy", 0.9, 0.0, difference(-0.04, -0.01, 0.01)).num_rows == 1600
    at_the_margin = judge("accuracy", 0.9, 0.002, difference(-0.02, -0.002, 0.01))
    assert at_the_margin.num_rows is None
    assert "no number of test rows would tell" in at_the_margin.why
    unknown = judge("max_error", 9.0, 0.0, replace(difference(0, 0, 0), low=None))
    assert unknown.result == "inconclusive"
    assert "there is no interval of max_error" in unknown.why


def test_rows_do_not_shrink_what_the_seeds_make() -> None:
    found = difference(-0.01, 0.003, 0.02)
    # The variance has to come to (0.005 / 0.013)² = 0.148 of what it is; seeds keep 0.1 of it.
    verdict = judge("accuracy", 0.9, 0.002, replace(found, seeds=0.1))
    assert verdict.num_rows == math.ceil(400 * 0.9 / ((5 / 13) ** 2 - 0.1))
    hopeless = judge("accuracy", 0.9, 0.002, replace(found, seeds=0.2))
    assert (hopeless.result, hopeless.num_rows) == ("inconclusive", None)
    assert "more replicas would tell" in hopeless.why


def test_gates_go_by_the_change_where_there_are_replicas() -> None:
    change = {"value": -0.01, "low": -0.03, "high": 0.01, "rows": 3.0, "shared": 1.0, "seeds": 2.0}
    change["after"] = 0.88
    metric = {"after": 0.9, "value": 0.0, "low": 0.0, "high": 0.0, "less_is_better": False}
    comparison = {
        "why_not": None,
        "rows": {"shared": 410, "relabelled": 10},
        "replicas": {"before": 3, "after": 4, "needed": 3},
        "metrics": {"accuracy": {**metric, "change": change}},
    }
    gates = gate(not_worse_by=0.002)
    (verdict,) = judge_differences(gates, {"accuracy": 0.9}, comparison, [])
    assert verdict.result == "inconclusive"
    assert "difference of the means -0.0100, 95 %: -0.0300 to +0.0100" in verdict.why
    # The value of the model that is served, and the mean that was judged.
    both = "0.9000 (seed served), 0.8800 (mean of 4 seeds)"
    assert verdict.written_value() == both
    assert verdict.sentence().startswith(f"gate inconclusive: accuracy {both}, not worse by 0.002")
    found = difference_of("accuracy", comparison)
    assert found == Difference(-0.01, -0.03, 0.01, 400, False, 0.25, 0.88, 4)
    comparison["metrics"] = {"accuracy": {**metric, "change": None}}
    (verdict,) = judge_differences(gates, {"accuracy": 0.9}, comparison, [])
    assert verdict.result == "pass"
    assert verdict.written_value() == "0.9000"
    assert "difference +0.0000" in verdict.why


@pytest.mark.parametrize(("step", "margin"), [(0.04, 0.0), (-0.03, 0.005), (0.0, 0.02)])
def test_with_that_many_rows_it_is_known(step: float, margin: float) -> None:
    # Real intervals of the paired bootstrap; more rows like these are these rows several times.
    random = np.random.default_rng(3)
    target = random.normal(size=200)
    before = target + random.normal(0, 0.5, 200)
    after = target + random.normal(0, 0.5, 200)
    after += (step - (np.abs(after - target).mean() - np.abs(before - target).mean())) * np.sign(
        after - target
    )

    def judged(times: float) -> Verdict:
        rows = np.resize(np.arange(200), round(200 * times))
        found = paired_differences(["mae"], "regression", target[rows], before[rows], after[rows])
        interval = found["mae"]
        assert interval.low is not None
        assert interval.high is not None
        given = Difference(interval.value, interval.low, interval.high, len(rows), True)
        return judge("mae", 0.5, margin, given)

    verdict = judged(1)
    assert verdict.result == "inconclusive"
    assert verdict.num_rows is not None
    times = np.ceil(verdict.num_rows / 200)
    assert judged(times * 1.3).result == ("fail" if step > margin else "pass")
    assert judged(max(1, times // 2)).result == "inconclusive"


def test_values_are_judged_and_no_value_is_no_pass() -> None:
    assert [v.result for v in judge_values(gate(minimum=0.9, maximum=0.99), {"accuracy": 0.9})] == [
        "pass",
        "pass",
    ]
    (low,) = judge_values(gate(minimum=0.95, not_worse_by=0.0), {"accuracy": 0.93013})
    assert low.sentence() == "gate failed: accuracy 0.9301, at least 0.95"
    (gone,) = judge_values(gate(minimum=0.95), {})
    assert gone.result == "fail"
    assert "no value, at least 0.95 (run 'dvc repro evaluate'" in gone.sentence()


def test_what_cannot_be_compared_is_never_passed() -> None:
    gates = gate(not_worse_by=0.1)
    missing = ["the predictions of main are not in DVC's cache: 'dvc fetch'"]
    (verdict,) = judge_differences(gates, {"accuracy": 0.9}, {}, missing)
    assert (verdict.result, verdict.why) == ("inconclusive", missing[0])
    other = {"why_not": "splits differ: fewer than half of the rows are shared"}
    (verdict,) = judge_differences(gates, {"accuracy": 0.9}, other, [])
    assert (verdict.result, verdict.why) == ("inconclusive", other["why_not"])
    passed = Verdict("a", 1.0, "at least 0", "pass")
    failed = Verdict("a", 1.0, "at least 2", "fail")
    assert overall([passed]) == overall([]) == "pass"
    assert overall([passed, verdict]) == "inconclusive"
    assert overall([failed, verdict]) == "fail"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (63176.69, "63177"),
        (-1234567.8, "-1234568"),
        (2.5e12, "2.5e+12"),
        (999.5, "999.5000"),
        (0.0012345, "0.001234"),
        (7, "7"),
    ],
)
def test_a_large_value_is_shown_whole(value: float, shown: str) -> None:
    assert format_value(value) == shown
