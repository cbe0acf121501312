"""The last training that ended: has it learned anything? `--training` measures it in any case."""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from pipeline.doctor.attempts import read_attempts
from pipeline.doctor.cause import Probe, find_cause
from pipeline.doctor.finding import Finding, Options, note, ok, wrong
from pipeline.doctor.guess import PREPARED, find_guess
from pipeline.doctor.history import (
    HISTORY,
    SAME,
    Sign,
    is_of_now,
    judge,
    read_history,
    rows_at_once,
)
from pipeline.doctor.measure import measure
from pipeline.doctor.missing import find_missing
from pipeline.doctor.page import link_of

AREA = "training"
MAX_REMEDIES = 3
# What keeps a training from learning. Where one has learned it is worth knowing, and nothing fails.
OVERCOME = (
    SAME,
    "a rate that is too low",
    "labels that do not belong to their rows",
    "a dead ReLU network",
    "gradients that vanish",
    "gradients that explode",
)


def check(options: Options) -> Iterator[Finding]:
    """Yield what stands out in the history, and what measuring it finds."""
    probes: list[Probe] = []
    learned = False
    if HISTORY.exists() and (PREPARED / "train/target.npy").exists():
        history = read_history()
        signs = list(judge(history, find_guess())) if history else []
        now = is_of_now()
        learned = now and bool(history) and all(sign.cause != SAME for sign in signs)
        for sign in signs:
            yield tell(sign, now=now)
            probes += sign.probes if now else ()
        if not signs:
            yield ok(f"the last one that ended has learned, in {len(history)} epochs")
        if found := rows_at_once():
            used, asked = found
            why = "a larger part was tried first, and the memory did not hold it"
            mend = f"train.micro_batch_size: {used}"
            yield note(f"{used} rows at once were taken, {asked or 'all'} asked for", why, mend)
    else:
        gone = str(HISTORY) in {path for each in find_missing().values() for path in each.paths}
        said = "of the last one that ended, the outputs are not here" if gone else ""
        yield ok(said or "none has ended yet")
    failed = any(each.stage == "train" and not each.is_running for each in read_attempts())
    learned = learned and not failed
    if options.measure == "all":
        probes = list(get_args(Probe))
    elif options.measure == "none" or failed:
        # Of a training that failed since, what that needs was measured.
        probes = []
    for finding in measure(probes):
        yield lighten(finding) if learned else finding


def lighten(finding: Finding) -> Finding:
    """The finding after a training that has learned: what would keep one from it has not."""
    if finding.level != "wrong" or not finding.what.startswith(OVERCOME):
        return finding
    what = f"{finding.what}\n  the last training has learned all the same"
    return replace(finding, level="note", what=what)


def tell(sign: Sign, *, now: bool) -> Finding:
    """The finding of a sign, with what the table says of it.

    Of other parameters than those of `now` it says nothing of the next training.
    """
    cause = find_cause(sign.cause)
    make = wrong if sign.fails and now else note
    what = f"{cause.name}: {sign.what}"
    what += "" if now else "\n  params.yaml has changed since: the next training may be another"
    return make(what, cause.means, *cause.remedies[:MAX_REMEDIES], f"more: {link_of(cause)}")
