"""The stages that failed, were stopped or killed, and why, by the table of causes."""

from collections.abc import Iterator
from dataclasses import replace

import psutil

from pipeline.doctor.attempts import OWN, Attempt, newest_checkpoint, read_attempts, since
from pipeline.doctor.cause import Cause, find_cause, recognise
from pipeline.doctor.finding import Finding, Options, note, ok, wrong
from pipeline.doctor.measure import measure
from pipeline.doctor.missing import AGAIN, Missing, find_missing
from pipeline.doctor.page import link_of

AREA = "last run"
MAX_LINES = 6
MAX_REMEDIES = 3
KILLED = "the process was killed"
STOPPED = "it was stopped"
# What comes of these is seen in the rows and the model, as the stage train has them.
TRAINS = ("train", "tune", "build")


def check(options: Options) -> Iterator[Finding]:
    """Yield why stages have not ended well; of a text from elsewhere, what it says."""
    if options.log is not None:
        yield from explain_text(options.log)
        return
    attempts, missing = list(read_attempts()), find_missing()
    noted = {attempt.stage for attempt in attempts}
    unnoted = [each for name, each in missing.items() if name not in noted]
    if not attempts and not any(each.removed for each in unnoted):
        yield ok("no stage has failed since it last ended well")
    for attempt in attempts:
        if attempt.is_running:
            yield tell_running(attempt)
            continue
        cause = next(iter(causes_of(attempt)), None)
        measured: list[Finding] = []
        if cause is not None and options.measure == "needed" and is_worth_measuring(attempt):
            measured = list(measure(cause.probes))
        finding = tell(attempt, cause)
        if attempt.state == "running" and attempt.stage in missing:
            what = f"{finding.what}\n  not here: {missing[attempt.stage].shown}"
            finding = replace(finding, what=what, mend=(AGAIN, *finding.mend))
        yield from merge(finding, cause, measured)
    yield from (tell_removed(each) for each in unnoted if each.removed)
    if others := [each for each in unnoted if not each.removed]:
        what = "\n".join(f"not here: {each.shown}" for each in others)
        why = "what reads them stops; nothing tells that they have ever been here"
        pull = f"dvc pull {' '.join(each.stage for each in others)}   # where a remote has them"
        yield note(what, why, pull, AGAIN)


def tell_removed(missing: Missing) -> Finding:
    """The finding of a stage whose outputs were here, and that has no record of a failure."""
    cause = find_cause(KILLED)
    what = f"{missing.stage} was started, and killed before it could note that it runs"
    why = (
        "DVC removes the outputs of a stage before it starts it, and the stage was killed while "
        "its libraries were loaded; or somebody has removed them"
    )
    return wrong(f"{what}\n  not here: {missing.shown}", why, AGAIN, f"more: {link_of(cause)}")


def tell_running(attempt: Attempt) -> Finding:
    """The finding of a stage that runs, or that another machine may still run."""
    when = since(attempt.started)
    if attempt.is_here:
        return ok(f"{attempt.stage} runs, since {when}")
    host = attempt.facts["host"]
    what = f"{attempt.stage} began {when} on {host}: if it still runs can only be told there"
    why = "its process is that machine's; what it writes is not looked at"
    ended = f"rm {attempt.path}   # if it has ended, and {host} is gone"
    return note(what, why, f"reprise doctor   # on {host}", ended)


def is_worth_measuring(attempt: Attempt) -> bool:
    """Check whether what failed is the training of `params.yaml` as it is now."""
    failed = attempt.state in ("failed", "running")
    return failed and attempt.is_of_now and attempt.stage in TRAINS


def merge(finding: Finding, cause: Cause | None, measured: list[Finding]) -> Iterator[Finding]:
    """Yield the finding with what was measured of its cause, whose remedies come first."""
    others = []
    for each in measured:
        if cause is None or (each.why and each.why != cause.means):
            others.append(each)
            continue
        what = each.what.removeprefix(f"{cause.name}; ")
        mend = tuple(text for text in each.mend if text not in finding.mend)
        finding = replace(finding, what=f"{finding.what}\n  {what}", mend=(*mend, *finding.mend))
    yield finding
    yield from others


def causes_of(attempt: Attempt) -> list[Cause]:
    """The causes of a failure, the most likely first."""
    if attempt.state == "running":
        return [find_cause(KILLED)]
    if attempt.state in ("stopped", "interrupted"):
        return [find_cause(STOPPED)]
    return recognise(attempt.text)


def tell(attempt: Attempt, cause: Cause | None) -> Finding:
    """The finding of one attempt."""
    when, stage = since(float(attempt.facts.get("ended", attempt.started))), attempt.stage
    name = cause.name if cause else "the table has no such cause"
    verb = {"running": "began", "stopped": "was stopped", "interrupted": "was interrupted"}
    what = [f"{stage} {verb.get(attempt.state, 'failed')} {when}: {name}"]
    what += [f"  {line}" for line in attempt.text.splitlines()[:MAX_LINES]]
    what += _facts(attempt)
    why = cause.means if cause else "it may be a bug of the project; its log has the traceback"
    mend = (*cause.remedies[:MAX_REMEDIES], f"more: {link_of(cause)}") if cause else ()
    if attempt.state in ("stopped", "interrupted"):
        return note("\n".join(what), why, *mend, fix=attempt.forget)
    if not attempt.is_of_now:
        what.append("params.yaml has changed since: the next run may end well")
        return note("\n".join(what), why, *mend, fix=attempt.forget)
    return wrong("\n".join(what), why, *mend)


def _facts(attempt: Attempt) -> Iterator[str]:
    """Lines on what speaks for a cause, and on what was kept."""
    if attempt.state == "running":
        yield f"  process {attempt.facts.get('pid')} has ended without a word"
        if psutil.boot_time() > attempt.started:
            yield "  the machine was started again since"
        if attempt.kills:
            yield f"  the system has killed {attempt.kills} processes for want of memory since"
    frames = attempt.facts.get("frames") or []
    kinds = {error["type"] for error in attempt.facts.get("errors") or []}
    if frames and not kinds & {*OWN}:
        yield f"  raised at {frames[-1]}"
    if attempt.stage == "train" and (place := newest_checkpoint(attempt.started)):
        yield f"  the next run resumes {place}"


def explain_text(text: str) -> Iterator[Finding]:
    """Yield the causes in the text of a run from elsewhere, the one at its end first."""
    causes = recognise(text)
    if not causes:
        yield note("the text has no line of the table", "docs/troubleshooting.md lists its lines")
    for number, cause in enumerate(causes):
        make = wrong if number == 0 else note
        before = "" if number == 0 else "before that: "
        yield make(f"{before}{cause.name}", cause.means, *cause.remedies, f"more: {link_of(cause)}")
