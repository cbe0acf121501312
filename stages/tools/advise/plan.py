"""The shares of the rows and the time that each phase may take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stages.common.errors import UserError
from stages.tools.advise.measure.arms import INCUMBENT, Arm
from stages.tools.advise.measure.study import NUM_SEEDS, Asked, At, Study

# Shares of the rows that trainings may be measured on; of fewer rows than these, or of
# fewer of a class, all.
SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
FEWEST_ROWS, FEWEST_OF_CLASS = 400, 50
# Of the time that is left at its beginning, the share of each phase: screening on one fold, on all
# folds, and again; the last measurements, before the learning curve.
ON_ONE_FOLD, ON_ALL_FOLDS, AGAIN, ON_FINALS = 0.3, 0.25, 0.2, 0.7
# Of the budget, what screening may take by the plan.
SCREENED_BY = 0.45
# The part of the budget that what has to be done may take.
DONE_BY = 0.6
# From so many times the budget on, what has to be done is not begun.
TOO_LONG = 3
NUM_FINALISTS = 3
MAX_REPEATS, MAX_AGAIN = 12, 4
# A changed training takes longer than that of the recipe, in the mean.
FACTOR = 1.4
# Parts of the rows, of which the learning curve is made.
CURVE_SHARES = (0.125, 0.25, 0.5)


@dataclass(frozen=True)
class Plan:
    """The shares of the rows that the budget has room for."""

    screened: float
    final: float

    @property
    def screen(self) -> At:
        """The place of all but the last measurements."""
        return At(0, self.screened)

    @property
    def finals(self) -> list[At]:
        """The places of the last measurements, none of which chose anything."""
        return [At(repeat, self.final) for repeat in range(1, MAX_REPEATS + 1)]

    @property
    def again(self) -> list[At]:
        """The places where the best ones are screened again."""
        first = MAX_REPEATS + 1
        return [At(repeat, self.screened) for repeat in range(first, first + MAX_AGAIN)]


def fit_final(study: Study, plan: Plan, arms: Sequence[Arm]) -> Plan:
    """The plan with as many rows at last as there is time for, now that the finalists are known.

    What each took in screening says how long it takes; a model may take many times the recipe's.
    """
    outcomes = [study.outcome(Asked(arm, plan.screen, 0)) for arm in (INCUMBENT, *arms)]
    seconds = sum(outcome.seconds for outcome in outcomes if outcome is not None)
    seconds *= len(study.folds(plan.screen)) / plan.screened
    left = study.budget_seconds - study.seconds
    shares = [share for share in SHARES if plan.screened <= share <= plan.final]
    final = next((share for share in shares if share * seconds <= left), plan.screened)
    return replace(plan, final=final)


def make_plan(study: Study, num_arms: int) -> Plan:
    """Measure how long a training takes, and choose what the budget has room for.

    Raises UserError where it has room for nothing.
    """
    num_rows, budget = len(study.pool), study.budget_seconds
    rarest = study.pool.count_rarest()
    shares = [
        share
        for share in SHARES
        if share == 1 or (share * num_rows >= FEWEST_ROWS and share * rarest >= FEWEST_OF_CLASS)
    ]
    at = At(0, shares[-1])
    num_folds = len(study.folds(at))
    probes = [Asked(INCUMBENT, at, fold, draw) for fold in range(num_folds) for draw in (0, 1)]
    # The first one alone: it waits for what is loaded once.
    study.run(probes[:1], float("inf"))
    study.run(probes, float("inf"))
    outcomes = [outcome for each in probes[1:] if (outcome := study.outcome(each)) is not None]
    seconds = FACTOR * float(np.mean([o.seconds for o in outcomes])) / shares[-1]
    # The last measurements once on each fold, luck, and the curve: what has to be done.
    least = (NUM_FINALISTS + 1 + NUM_SEEDS + sum(CURVE_SHARES)) * num_folds * seconds
    final = next((s for s in shares if s * least <= DONE_BY * budget), shares[-1])
    if shares[-1] * least > TOO_LONG * budget:
        minutes = math.ceil(shares[-1] * least / DONE_BY / 60)
        message = f"a budget of {budget:g} s is too short: a training takes {seconds:.2g} s here"
        raise UserError(f"{message}, and about thirty are the least; try --budget {minutes}m")
    count = num_arms + NUM_SEEDS * num_folds + num_arms / 3 * (num_folds - 1)
    fits = (s for s in shares if s <= final and s * count * seconds <= SCREENED_BY * budget)
    return Plan(next(fits, shares[-1]), final)
