"""The phases of advice: luck first, then many changes in short, then the best of them at length.

Successive halving: all changes are tried on one fold, the better ones on all folds, and the three
best anew, by seeds and folds that chose nothing: the best of many looks better than it is (the
winner's curse), so that only these last numbers are shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.features.numbers import Rows
from stages.tools.advise.data import LABELS
from stages.tools.advise.measure.arms import AXES, INCUMBENT, LR, Arm
from stages.tools.advise.measure.judge import Estimate
from stages.tools.advise.measure.study import NUM_SEEDS, Asked, At, Study
from stages.tools.advise.plan import (
    AGAIN,
    NUM_FINALISTS,
    ON_ALL_FOLDS,
    ON_FINALS,
    ON_ONE_FOLD,
    Plan,
)

MIN_KEPT, NUM_AGAIN = 12, 6


@dataclass(frozen=True)
class Screened:
    """An arm after screening; `found` None: it was tried on one fold alone, or not at all."""

    arm: Arm
    first: float | None
    found: Estimate | None = None


def measure_luck(study: Study, at: At) -> None:
    """Train the recipe as it is on each fold, by several seeds."""
    asked = [Asked(INCUMBENT, at, f, d) for d in range(NUM_SEEDS) for f in study.folds(at)]
    study.run(asked, float("inf"))


def screen(study: Study, plan: Plan, arms: Sequence[Arm], suspects: Rows | None) -> list[Screened]:
    """Try all arms on one fold, the better ones on all folds, the best ones again and again."""
    at = plan.screen
    study.run([Asked(arm, at, 0) for arm in arms], study.after(ON_ONE_FOLD))
    first = {arm.name: _first_gain(study, arm, at, suspects) for arm in arms}
    tried = sorted(
        (arm for arm in arms if first[arm.name] is not None), key=lambda a: -(first[a.name] or 0.0)
    )
    kept = tried[: max(MIN_KEPT, len(tried) // 2)]
    # The best of each axis, so that something can be said of it, and what is no key.
    kept += [arm for axis in AXES for arm in [a for a in tried if a.axis == axis][:1]]
    kept += [arm for arm in tried if arm.topic == LABELS]
    kept = list({arm.name: arm for arm in kept}.values())
    others = [fold for fold in study.folds(at) if fold > 0]
    # Of what is left now: a group of trainings that had begun may have taken longer.
    study.run([Asked(arm, at, f) for arm in kept for f in others], study.after(ON_ALL_FOLDS))
    places = {arm.name: [at] for arm in kept}

    def find(arm: Arm) -> Estimate | None:
        if arm not in kept or not all(study.outcome(Asked(arm, at, fold)) for fold in others):
            return None
        return study.estimate(arm, places[arm.name], _rows_out(arm, suspects))

    found = {arm.name: find(arm) for arm in tried}
    last = study.after(AGAIN)
    for again in plan.again:
        if study.seconds > last:
            break
        known = [arm for arm in kept if found[arm.name] is not None]
        known.sort(key=lambda arm: -_gain(found[arm.name]))
        best = known[:NUM_AGAIN]
        asked = [
            Asked(arm, again, fold) for fold in study.folds(again) for arm in (INCUMBENT, *best)
        ]
        study.run(asked, last)
        for arm in best:
            if study.is_measured(arm, again):
                places[arm.name].append(again)
                found[arm.name] = find(arm)
    return [Screened(arm, first[arm.name], found[arm.name]) for arm in tried]


def _gain(found: Estimate | None) -> float:
    return found.gain if found is not None else -np.inf


def _first_gain(study: Study, arm: Arm, at: At, suspects: Rows | None) -> float | None:
    rows_out = _rows_out(arm, suspects)
    ours = study.value(Asked(arm, at, 0), rows_out)
    theirs = study.value(Asked(INCUMBENT, at, 0), rows_out)
    if ours is None or theirs is None:
        return None
    return ours - theirs if np.isfinite(ours - theirs) else None


def _rows_out(arm: Arm, suspects: Rows | None) -> Rows | None:
    """The rows that an arm is not judged on: of labels in doubt nobody knows which is right."""
    return suspects if arm.topic == LABELS else None


def best_by_topic(arms: Sequence[Arm]) -> list[Arm]:
    """The first arm of each topic, in their order."""
    found: dict[str, Arm] = {}
    for arm in arms:
        found.setdefault(arm.topic, arm)
    return list(found.values())


def choose_finalists(screened: Sequence[Screened]) -> list[Arm]:
    """The three arms of the largest gains, that of one topic once.

    A gain counts less its error: of many changes the noisiest looks best. Where too few are known
    on all folds, the best on one follow.
    """
    known = [(each.arm, each.found) for each in screened if each.found is not None]
    errors = {arm.name: found.error for arm, found in known}
    ranked = [(arm, gain - errors[arm.name]) for arm, gain in rank(known) if gain > 0]
    ranked.sort(key=lambda each: -each[1])
    once = [each for each in screened if each.found is None and (each.first or 0.0) > 0]
    once.sort(key=lambda each: -(each.first or 0.0))
    arms = [*(arm for arm, _ in ranked), *(each.arm for each in once)]
    return best_by_topic(arms)[:NUM_FINALISTS]


def rank(known: Sequence[tuple[Arm, Estimate]]) -> list[tuple[Arm, float]]:
    """Arms by what they gain, the largest first.

    A model with a learning rate of its own is compared with the recipe at its best rate: what the
    rate alone brings is no reason for another model.
    """
    alone = max((found.gain for arm, found in known if arm.topic == LR), default=0.0)
    gains = [
        (arm, found.gain - (max(0.0, alone) if arm.axis == "model" and LR in arm.overrides else 0))
        for arm, found in known
    ]
    return sorted(gains, key=lambda each: -each[1])


def measure_finals(study: Study, plan: Plan, arms: Sequence[Arm]) -> None:
    """Measure the finalists anew, repeat by repeat: the first in any case, others in time."""
    until = study.after(ON_FINALS)
    for number, at in enumerate(plan.finals):
        asked = [Asked(arm, at, fold) for fold in study.folds(at) for arm in (INCUMBENT, *arms)]
        study.run(asked, float("inf") if number < 1 else until)
