"""The data axis beside keys: labels in doubt, columns, more rows."""

import hashlib
from dataclasses import replace

import numpy as np

from stages.features.numbers import Rows
from stages.model.calibration import to_probabilities
from stages.tools.advise.changes import list_arms
from stages.tools.advise.columns import Leak, drop_arms, find_leak, least_needed, tables_of
from stages.tools.advise.curve import Curve, fit_curve
from stages.tools.advise.labels import Suspects, find_suspects
from stages.tools.advise.measure.arms import INCUMBENT, Arm
from stages.tools.advise.measure.judge import Floats
from stages.tools.advise.measure.rows import Change
from stages.tools.advise.measure.study import Asked, At, Study
from stages.tools.advise.measure.trainings import train_model
from stages.tools.advise.plan import CURVE_SHARES, Plan
from stages.training.step.divergence import DivergedError

# A part of fewer rows is a point of the curve only where there is no other.
FEWEST_LEARNED = 16
LABELS = "labels"


def suspect_rows(study: Study, at: At) -> tuple[Rows, Suspects] | None:
    """The rows whose label is in doubt, by trainings that have not seen them.

    None of values, and of rows in order of time: those of train are never judged.
    """
    if study.metric.task == "regression" or study.pool.schema.ordered:
        return None
    found = study.out_of_fold(at)
    if found is None:
        return None
    rows, scores = found
    suspects = find_suspects(to_probabilities(scores), study.pool.target(rows).astype(np.int64))
    return rows[suspects.rows], suspects


def label_arm(rows: Rows) -> Arm:
    """The arm that learns from nothing whose label is in doubt."""
    which = "the row" if len(rows) == 1 else f"the {len(rows):,} rows"
    title = f"look at {which} whose label is in doubt, in suspects.csv"
    # By these very rows: others of the same number are another change.
    digest = hashlib.sha256(np.sort(rows).tobytes()).hexdigest()[:8]
    return Arm("data", LABELS, title, {}, Change(dropped=rows), mark=digest)


def column_arms(study: Study, at: At, present: dict[str, str]) -> list[Arm]:
    """Arms that leave a column out: those that the model needs least."""
    fact = f"least needed at {at.share:g}"
    if fact not in study.journal.facts:
        before, names = study.seconds, []
        if len(tables_of(study.pool)) > 1:
            try:
                model = train_model(study.job(Asked(INCUMBENT, at, 0)))
                names = least_needed(study.pool, study.splits(at)[0], model, study.metric)
            except DivergedError:
                names = []
        study.journal.state(fact, names, study.seconds - before)
    return list(drop_arms(study.journal.facts[fact], present))


def leak_of(study: Study, at: At) -> Leak | None:
    """The column that tells the target nearly alone, if there is one."""
    split = study.splits(at)[0]
    value = study.value(Asked(INCUMBENT, at, 0))
    assert value is not None
    return find_leak(study.pool, split, study.metric.sign * value, study.metric)


def at_final_share(study: Study, plan: Plan, arm: Arm) -> Arm:
    """The arm as it is measured at last: of labels in doubt, all among the rows of that share."""
    if arm.topic != LABELS or plan.screened == plan.final:
        return arm
    at = replace(plan.screen, share=plan.final)
    study.run([Asked(INCUMBENT, at, fold) for fold in study.folds(at)], float("inf"))
    found = suspect_rows(study, at)
    return arm if found is None else label_arm(found[0])


def part_arms(base: Arm, num_rows: int) -> list[Arm]:
    """Arms as `base` that learn from a part of `num_rows` rows, the smallest part first."""
    return [
        Arm("data", "rows", f"{base.name}, {s:g} of the rows", base.overrides, Change(share=s))
        for s in CURVE_SHARES
        if s * num_rows >= FEWEST_LEARNED or s in CURVE_SHARES[-2:]
    ]


def measure_curve(study: Study, plan: Plan, base: Arm) -> Curve | None:
    """The learning curve of an arm that was measured, from parts of the rows to all of them.

    None of rows in order of time, and where the budget has no room for all rows: of fewer a
    training has fewer steps, which would look like a reason for more rows.
    """
    if study.pool.schema.ordered or plan.final < 1:
        return None
    places = study.measured(base, plan.finals)
    if not places:
        return None
    num_rows = len(study.splits(places[0])[0].learned)
    parts = part_arms(base, num_rows)
    for number, at in enumerate(places):
        asked = [Asked(arm, at, fold) for fold in study.folds(at) for arm in parts]
        study.run(asked, float("inf") if number < 1 else study.budget_seconds)
    places = [at for at in places if all(study.is_measured(arm, at, base) for arm in parts)]
    if not places:
        return None
    whole = study.estimate(parts[0], places, base=base)
    values: dict[int, Floats] = {}
    for arm in (*parts, base):
        asked = [Asked(arm, at, fold) for at in places for fold in study.folds(at)]
        change = arm.change or Change()
        learned = study.pool.part(study.splits(places[0])[0].learned, change.share)
        values[len(learned)] = np.array([study.value(each) for each in asked], np.float64)
    if whole is None or not all(np.isfinite(each).all() for each in values.values()):
        return None
    # What all rows gain over the part, and not the part over all.
    whole = replace(whole, gain=-whole.gain, low=-whole.high, high=-whole.low)
    return fit_curve(values, whole, study.pool.seed, study.metric.perfect)


def leaves_out(arm: Arm, column: str) -> bool:
    """Check whether it is the arm without a column."""
    return arm.change is not None and arm.change.column == column


def all_arms(study: Study, at: At, present: dict[str, str], leak: Leak | None) -> list[Arm]:
    """All arms that are tried: those of keys, of columns, of labels."""
    arms = list_arms(study.incumbent)
    columns = column_arms(study, at, present)
    labels = suspect_rows(study, at)
    extra = [label_arm(labels[0])] if labels is not None and len(labels[0]) else []
    kept = [arm for arm in columns if leak is None or not leaves_out(arm, leak.column)]
    return [*extra, *arms[:8], *kept, *arms[8:]]
