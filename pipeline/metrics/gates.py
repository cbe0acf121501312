"""The verdict of `evaluate.gates` on a run: each gate passes, fails, or can't be told yet.

Minimum and maximum judge the value itself. `not_worse_by` judges the difference from another
revision by its interval: a gate passes when the whole of it is on the good side of the margin,
fails when the whole of it is beyond, and is inconclusive otherwise, as in a test of
non-inferiority (Piaggio et al., JAMA 308, 2012). No output of a stage depends on it.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.common.lockfile import describe_stale, find_stale
from pipeline.metrics.metrics import LARGE, format_value
from stages.common.config import validate
from stages.common.errors import UserError
from stages.common.params import PARAMS
from stages.common.yamlfile import read_yaml
from stages.evaluate.params import Gate, check_gates

EVALUATE = "evaluate"
PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"


@dataclass(frozen=True)
class Difference:
    """A metric now less before, and between what it lies at 95 %, from `num_rows` paired rows.

    `seeds` is the share of its variance that more rows would leave as it is. Where it is one of
    means over seeds, `mean` is that of now, over `num_seeds`.
    """

    value: float
    low: float | None
    high: float | None
    num_rows: int
    less_is_better: bool
    seeds: float = 0.0
    mean: float | None = None
    num_seeds: int = 1


@dataclass(frozen=True)
class Verdict:
    """The verdict of one bound of a gate on a metric: 'pass', 'fail' or 'inconclusive', and why.

    `num_rows` is how many test rows it would take to know, where some number would do. `value` is
    that of the model that is served; where the gate has judged means over seeds, `mean` is that
    over `num_seeds` of them.
    """

    metric: str
    value: float | None
    gate: str
    result: str
    why: str = ""
    num_rows: int | None = None
    mean: float | None = None
    num_seeds: int = 1

    def written_value(self) -> str:
        """The value, and beside it the mean that was judged, both named; empty without a value."""
        if self.value is None:
            return ""
        value = format_value(self.value)
        if self.mean is None:
            return value
        return f"{value} (seed served), {format_value(self.mean)} (mean of {self.num_seeds} seeds)"

    def sentence(self) -> str:
        """The verdict on one line."""
        value = self.written_value() or "no value"
        why = f" ({self.why})" if self.why else ""
        word = {PASS: "passed", FAIL: "failed"}.get(self.result, self.result)
        return f"gate {word}: {self.metric} {value}, {self.gate}{why}"


def read_gates() -> dict[str, Gate]:
    """`evaluate.gates` of `params.yaml`, by metric.

    Raises UserError when a gate is wrong, or is on a metric that is not computed.
    """
    section = read_yaml(PARAMS).get(EVALUATE) or {}
    gates = {
        name: validate(Gate, gate, at=f"evaluate.gates.{name}")
        for name, gate in (section.get("gates") or {}).items()
    }
    if problems := check_gates(gates, section.get("metrics") or [], section.get("coverage")):
        raise UserError(*problems)
    return gates


def stale_evaluate(locked: Mapping[str, Any]) -> str | None:
    """The reason why evaluate's metrics are of another model; None where they are of this one.

    `locked` are the stages of `dvc.lock`.
    """
    writer = find_stale(locked).get(EVALUATE)
    return None if writer is None else describe_stale(EVALUATE, writer)


def needs_base(gates: Mapping[str, Gate]) -> bool:
    """Check whether any of the gates compares with another revision."""
    return any(gate.not_worse_by is not None for gate in gates.values())


def judge_values(
    gates: Mapping[str, Gate], metrics: Mapping[str, Any], stale: str | None = None
) -> list[Verdict]:
    """Results of the gates' minima and maxima, for the metrics of evaluate.

    No value is no passed gate. Where evaluate is stale, as `stale` says, what it has written is no
    value of this model.
    """
    metrics = metrics if stale is None else {}
    verdicts = []
    for name, gate in gates.items():
        value = metrics.get(name)
        bounds = []
        if gate.minimum is not None:
            passed = value is not None and value >= gate.minimum
            bounds.append((f"at least {gate.minimum:g}", passed))
        if gate.maximum is not None:
            passed = value is not None and value <= gate.maximum
            bounds.append((f"at most {gate.maximum:g}", passed))
        why = "" if value is not None else stale or "run 'dvc repro evaluate', which writes it"
        for bound, passed in bounds:
            verdicts.append(Verdict(name, value, bound, PASS if passed else FAIL, why))
    return verdicts


def judge_differences(
    gates: Mapping[str, Gate],
    metrics: Mapping[str, Any],
    comparison: Mapping[str, Any],
    missing: Iterable[str],
) -> list[Verdict]:
    """Results of the gates' `not_worse_by`, for the differences from `stages.compare.compare`.

    Without a comparison (`missing` says why), or where the rows can't be paired, nothing can be
    told: that is inconclusive, never passed.
    """
    why_not = next(iter(missing), None) or comparison.get("why_not")
    verdicts = []
    for name, gate in gates.items():
        margin = gate.not_worse_by
        if margin is None:
            continue
        value = metrics.get(name)
        if why_not is not None:
            verdicts.append(Verdict(name, value, _bound(margin), INCONCLUSIVE, why_not))
        else:
            found = difference_of(name, comparison)
            verdict = judge(name, value, margin, found)
            verdicts.append(replace(verdict, mean=found.mean, num_seeds=found.num_seeds))
    return verdicts


def judge_all(
    gates: Mapping[str, Gate],
    metrics: Mapping[str, Any],
    comparison: Mapping[str, Any],
    missing: Iterable[str],
    stale: str | None = None,
) -> list[Verdict]:
    """Both, metric by metric; arguments as those of `judge_values` and `judge_differences`."""
    metrics = metrics if stale is None else {}
    verdicts = judge_values(gates, metrics, stale)
    verdicts += judge_differences(gates, metrics, comparison, missing)
    return sorted(verdicts, key=lambda verdict: list(gates).index(verdict.metric))


def difference_of(name: str, comparison: Mapping[str, Any]) -> Difference:
    """The difference that gates go by: its interval is chosen here and nowhere else."""
    found, rows = comparison["metrics"][name], comparison["rows"]
    num_rows = rows["shared"] - rows["relabelled"]
    # That of the change, where there are replicas enough to speak of it.
    change = found["change"]
    if change is None:
        ends = found["value"], found["low"], found["high"]
        return Difference(*ends, num_rows, found["less_is_better"])
    ends = change["value"], change["low"], change["high"]
    of_rows = max(0.0, change["rows"] - change["shared"])
    variance = max(change["rows"], of_rows + change["seeds"])
    # What seeds and rows share shrinks with the rows as well.
    of_seeds = max(0.0, change["seeds"] - change["shared"])
    seeds = min(1.0, of_seeds / variance) if variance else 0.0
    num_seeds = comparison["replicas"]["after"]
    return Difference(*ends, num_rows, found["less_is_better"], seeds, change["after"], num_seeds)


def judge(metric: str, value: float | None, margin: float, found: Difference) -> Verdict:
    """The verdict on a difference: pass, fail, or inconclusive with the rows that it would take.

    To end at the margin, the half of the interval on its side must shrink to the way from the
    estimate to the margin, if that stays where it is, and so the variance to the square of it.
    The part of it that the rows make shrinks with their number; that of the seeds does not. When
    the estimate stands at the margin, no number helps.
    """
    bound = _bound(margin)
    if found.low is None or found.high is None:
        return Verdict(metric, value, bound, INCONCLUSIVE, f"there is no interval of {metric}")
    sign = -1 if found.less_is_better else 1
    gain = sign * found.value
    worst, best = sorted((sign * found.low, sign * found.high))
    low, high = _signed(found.low), _signed(found.high)
    name = "difference" if found.mean is None else "difference of the means"
    why = f"{name} {_signed(found.value)}, 95 %: {low} to {high}"
    if worst >= -margin:
        return Verdict(metric, value, bound, PASS, why)
    if best < -margin:
        return Verdict(metric, value, bound, FAIL, why)
    way = gain + margin
    half = gain - worst if way > 0 else best - gain
    if math.isclose(gain, -margin, rel_tol=1e-7, abs_tol=1e-9):
        why += "; the estimate stands at the margin itself: no number of test rows would tell"
        return Verdict(metric, value, bound, INCONCLUSIVE, why)
    left = (way / half) ** 2 - found.seeds
    if left <= 0:
        why += "; more replicas would tell, more test rows alone would not"
        return Verdict(metric, value, bound, INCONCLUSIVE, why)
    needed = round(found.num_rows * (1 - found.seeds) / left, 3)
    num_rows = max(math.ceil(needed), found.num_rows + 1)
    why += f"; about {_rough(num_rows):,} test rows would tell, {found.num_rows:,} are there"
    return Verdict(metric, value, bound, INCONCLUSIVE, why, num_rows)


def overall(verdicts: Iterable[Verdict]) -> str:
    """The worst of them: one that fails, else one that is inconclusive, else a pass."""
    results = {verdict.result for verdict in verdicts}
    return next((result for result in (FAIL, INCONCLUSIVE) if result in results), PASS)


def _bound(margin: float) -> str:
    return f"not worse by {margin:g}"


def _signed(value: float) -> str:
    """A difference as the report shows it."""
    if 1000 <= abs(value) < LARGE:
        return f"{value:+.0f}"
    return f"{value:+.4f}" if abs(value) < 1000 else f"{value:+.4g}"


def _rough(number: int) -> int:
    """Round up to two digits: more would pretend to know."""
    unit: int = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit
