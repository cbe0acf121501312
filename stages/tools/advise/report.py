"""From a study to its findings: the phases in order, and what they come to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stages.common.counts import counted
from stages.common.files import rounded, write_csv
from stages.common.yamlfile import yaml_text
from stages.features.numbers import Rows
from stages.tools.advise.changes import list_arms
from stages.tools.advise.columns import Leak, drop_arms
from stages.tools.advise.curve import Curve
from stages.tools.advise.data import (
    LABELS,
    all_arms,
    at_final_share,
    leak_of,
    leaves_out,
    measure_curve,
    suspect_rows,
)
from stages.tools.advise.findings import Advice, Findings, advice_of
from stages.tools.advise.labels import Suspects
from stages.tools.advise.measure.arms import INCUMBENT, Arm
from stages.tools.advise.measure.judge import Estimate
from stages.tools.advise.measure.study import Asked, At, Study
from stages.tools.advise.phases import (
    choose_finalists,
    measure_finals,
    measure_luck,
    rank,
    screen,
)
from stages.tools.advise.plan import Plan, fit_final, make_plan
from stages.tools.advise.slices import weak_slices
from stages.tools.advise.summary import (
    describe_curve,
    find_detectable,
    list_failures,
    list_notes,
    measure_incumbent,
    sum_up_axes,
)

NUM_LOOKED_AT = 50


Doubtful = tuple[Rows, Suspects]


@dataclass(frozen=True)
class Answer:
    """The findings, with the changes that were measured at length, and the rows in doubt.

    `curve` is that of the recipe with the change `base`.
    """

    findings: Findings
    measured: Sequence[tuple[Arm, Estimate]]
    base: Arm
    curve: Curve | None
    suspects: Doubtful | None


def find_all(
    study: Study, present: dict[str, str], slice_columns: Sequence[str] | None = None
) -> Answer:
    """Go through the phases; `present` is `prepare.columns` as it stands.

    `slice_columns` are those of `evaluate.slices`.
    """
    pool, budget = study.pool, study.budget_seconds
    arms = list_arms(study.incumbent)
    plan = make_plan(study, len(arms))
    print(f"{len(pool):,} rows of train and validation; {len(arms)} changes of keys to try")
    print(f"screening on {plan.screened:.4g} of the rows, the last word on {plan.final:.4g}")
    measure_luck(study, plan.screen)
    _say(study, "luck is known")
    leak = leak_of(study, plan.screen)
    arms = all_arms(study, plan.screen, present, leak)
    found = suspect_rows(study, plan.screen)
    suspects = None if found is None else found[0]
    screened = screen(study, plan, arms, suspects)
    _say(study, f"{len(screened)} of {counted(len(arms), 'change')} screened")
    chosen = choose_finalists(screened)
    plan = fit_final(study, plan, chosen)
    finalists = [at_final_share(study, plan, arm) for arm in chosen]
    if leak is not None:
        finalists += drop_arms([leak.column], present)
    measure_finals(study, plan, finalists)
    places = study.measured(INCUMBENT, plan.finals)
    changes, times = counted(len(finalists), "change"), counted(len(places), "time")
    _say(study, f"{changes} measured anew, {times}")
    known = [(arm, estimate) for arm in finalists if (estimate := _estimate(study, plan, arm))]
    base = _choose_base(known)
    curve = measure_curve(study, plan, base)
    if found is not None and plan.screened != plan.final:
        found = suspect_rows(study, At(0, plan.final)) or found
    advice = _advice(study, plan, known, leak, (base, curve), found)
    value, train_loss, validation_loss = measure_incumbent(study, places)
    findings = Findings(
        metric=study.metric.name,
        less_is_better=study.metric.sign < 0,
        model=study.incumbent.spec.name,
        num_rows=len(pool),
        num_folds=1 if pool.schema.ordered else len(study.folds(places[0])),
        num_repeats=len(places),
        share=plan.final,
        screened_share=plan.screened,
        budget_seconds=budget,
        seconds=study.seconds,
        value=value,
        luck=study.luck(plan.screen),
        detectable=find_detectable(known),
        train_loss=train_loss,
        validation_loss=validation_loss,
        advice=advice,
        axes=sum_up_axes(screened),
        curve=None if curve is None else describe_curve(curve, study.metric.sign),
        slices=weak_slices(study, places[0], slice_columns),
        num_suspects=0 if found is None else len(found[0]),
        num_untried=len(arms) - len(screened),
        notes=[*list_notes(study, plan), *list_failures(study, arms)],
    )
    return Answer(findings, known, base, curve, found)


def _choose_base(measured: Sequence[tuple[Arm, Estimate]]) -> Arm:
    """The recipe that more rows are judged with: with the surest change of keys, if one is sure.

    Where a key is wrong, more rows are often only more steps.
    """
    sure = [(arm, found) for arm, found in measured if found.is_sure and arm.change is None]
    ranked = rank(sure)
    return ranked[0][0] if ranked else INCUMBENT


def _estimate(study: Study, plan: Plan, arm: Arm) -> Estimate | None:
    """The gain of a finalist; of labels in doubt, on all other rows."""
    places = study.measured(arm, plan.finals)
    rows_out = arm.change.dropped if arm.topic == LABELS and arm.change else None
    return study.estimate(arm, places, rows_out) if places else None


def _say(study: Study, what: str) -> None:
    print(f"{study.seconds:6.1f} s  {what}", flush=True)


def _advice(
    study: Study,
    plan: Plan,
    measured: Sequence[tuple[Arm, Estimate]],
    leak: Leak | None,
    rows: tuple[Arm, Curve | None],
    suspects: Doubtful | None,
) -> list[Advice]:
    """The changes that were measured at length: an alarm first, then by gain.

    Last is what may be no better, by what it promises.
    """
    alarms: list[Advice] = []
    found: list[tuple[float, float, Advice]] = []
    gains = {arm.name: gain for arm, gain in rank(measured)}
    for arm, estimate in measured:
        places = study.measured(arm, plan.finals)
        evidence = f"{estimate.num} pairs of trainings that differ in this alone"
        cost = _cost(study, arm, places)
        if leak is not None and leaves_out(arm, leak.column):
            evidence = (
                f"{leak.column} alone reaches {study.metric.name} {leak.alone:.4g}, all "
                f"columns {leak.whole:.4g}. Is it known before the target is? If not, the model "
                "is worth what it is without it"
            )
            cost = "a look at where the column comes from"
            said = arm.axis, arm.title, estimate, cost, evidence, arm.applies
            alarms.append(advice_of(*said, is_alarm=True))
            continue
        if arm.topic == LABELS and suspects is not None:
            all_rows = study.estimate(arm, places)
            if all_rows is not None and all_rows.gain < 0:
                # To leave out what it errs on flatters any model: all rows have a say.
                estimate = replace(estimate, low=min(estimate.low, all_rows.low))
            evidence += (
                f"; judged without the doubtful rows, with them {all_rows.gain:+.4f}"
                if all_rows
                else ""
            )
            num_rows = len(suspects[0])
            cost = "1 row to look at" if num_rows == 1 else f"{num_rows:,} rows to look at"
        advice = advice_of(arm.axis, arm.title, estimate, cost, evidence, arm.applies)
        found.append((gains[arm.name], estimate.promise, advice))
    base, curve = rows
    if curve is not None:
        num_rows = len(study.pool)
        sizes = ", ".join(f"{size:,}" for size in curve.sizes)
        change = f"{num_rows:,} more rows with labels, twice as many as there are"
        change += "" if base is INCUMBENT else f", after {base.title}"
        evidence = f"the learning curve over {sizes} rows, error falling as n^-{curve.power:.2g}"
        if (needed := curve.rows_for(curve.doubled.gain / 2)) is not None:
            evidence += f"; {needed:,} more would bring half of that gain"
        cost = f"{num_rows:,} rows to collect and label"
        advice = advice_of("data", change, curve.doubled, cost, evidence)
        found.append((advice.gain, curve.doubled.promise, advice))
    sure = sorted((each for each in found if each[-1].sure), key=lambda each: -each[0])
    others = sorted((each for each in found if not each[-1].sure), key=lambda each: -each[1])
    return alarms + [each[-1] for each in (*sure, *others)]


def _cost(study: Study, arm: Arm, places: Sequence[At]) -> str:
    """The time of a training beside that of the recipe as it is."""
    if not arm.trains:
        return "nothing: no training changes"
    pairs = [
        (study.outcome(Asked(arm, at, fold)), study.outcome(Asked(INCUMBENT, at, fold)))
        for at in places
        for fold in study.folds(at)
    ]
    ours = sum(one.seconds for one, _ in pairs if one)
    theirs = sum(other.seconds for _, other in pairs if other)
    return f"{ours / max(theirs, 1e-9):.2g} times the time of a training"


def write_suspects(path: Path, study: Study, found: Doubtful | None) -> None:
    """The rows whose label is in doubt, the surest first: key, label, what fits better."""
    lines: list[tuple[object, ...]] = []
    if found is not None:
        rows, suspects = found
        classes, keys = study.pool.schema.target.classes or [], study.pool.rows.keys
        codes = study.pool.target(rows).astype(np.int64)
        for row, code, other, margin in list(
            zip(rows, codes, suspects.likelier, suspects.margins, strict=True)
        )[:NUM_LOOKED_AT]:
            key = row if keys is None else keys[row]
            label, likelier = (yaml_text(classes[each]) for each in (code, other))
            lines.append((key, label, likelier, rounded(float(margin))))
    key = study.pool.schema.key or "row"
    write_csv(path, (key, "label", "likelier", "by"), lines)
