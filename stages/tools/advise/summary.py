"""The parts of a report beside the advice: the recipe as it is, the axes, the notes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.common.files import rounded
from stages.tools.advise.curve import Curve
from stages.tools.advise.findings import Tried
from stages.tools.advise.measure.arms import AXES, INCUMBENT, Arm
from stages.tools.advise.measure.judge import Estimate
from stages.tools.advise.measure.study import Asked, At, Study, mean_of_known
from stages.tools.advise.phases import Screened
from stages.tools.advise.plan import Plan


def find_detectable(measured: Sequence[tuple[Arm, Estimate]]) -> float | None:
    """The gain from which on the interval of a change is above 0, as these were measured."""
    reaches = [(found.high - found.low) / 2 for _, found in measured if found.error > 0]
    return float(np.median(reaches)) if reaches else None


def measure_incumbent(
    study: Study, places: Sequence[At]
) -> tuple[float | None, float | None, float | None]:
    """The metric of the recipe as it is, and its losses on train and validation rows."""
    asked = [Asked(INCUMBENT, at, fold) for at in places for fold in study.folds(at)]
    known = [outcome for each in asked if (outcome := study.outcome(each)) is not None]
    value = mean_of_known([study.value(each) for each in asked])
    losses = (
        mean_of_known([o.train_loss for o in known]),
        mean_of_known([o.validation_loss for o in known]),
    )
    found = study.metric.sign * value, *losses
    first, second, third = (each if math.isfinite(each) else None for each in found)
    return first, second, third


def sum_up_axes(screened: Sequence[Screened]) -> list[Tried]:
    """Each axis by the best change that was screened on all folds, and the most that any may be."""
    found = []
    for axis in AXES:
        own = [each for each in screened if each.arm.axis == axis]
        whole = [(each.arm, each.found) for each in own if each.found is not None]
        if not whole:
            continue
        arm, best = max(whole, key=lambda each: each[1].gain)
        numbers = rounded(best.gain), rounded(best.low), rounded(best.high)
        most = rounded(max(estimate.high for _, estimate in whole))
        found.append(Tried(axis, len(own), len(whole), arm.title, *numbers, most))
    return found


def describe_curve(curve: Curve, sign: int) -> dict[str, Any]:
    """The learning curve as it is written."""
    return {
        "sizes": list(curve.sizes),
        "values": [rounded(sign * value) for value in curve.values],
        "power": rounded(curve.power),
    }


def list_notes(study: Study, plan: Plan) -> list[str]:
    """The limits of the findings, in sentences."""
    notes: list[str] = []
    if plan.final < 1:
        notes.append(
            f"The budget had room for {plan.final:.4g} of the rows, so nothing is said of more of "
            "them; with all of them the gains of changes that suit many rows are larger."
        )
    if study.pool.step > 1:
        notes.append(f"Of the many rows one in {study.pool.step} was looked at.")
    notes += study.incumbent.notes
    if study.pool.schema.ordered:
        notes.append("Rows are in order of time: all was judged on the validation rows.")
    return notes


def list_failures(study: Study, arms: Sequence[Arm]) -> list[str]:
    """The changes that could not be trained, with the reasons."""
    failures = [(arm, study.failure(arm)) for arm in arms]
    return [f"{arm.title} could not be trained: {why}." for arm, why in failures if why]
