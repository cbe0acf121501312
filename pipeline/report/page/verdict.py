"""The gates in the headline of a page: what fails first, since that blocks."""

from collections.abc import Sequence

from pipeline.metrics.gates import FAIL, INCONCLUSIVE, PASS, Verdict, overall
from pipeline.report.page.page import escape

NO_GATES = "No gates are set: evaluate.gates of params.yaml sets bounds."
ORDER = (FAIL, INCONCLUSIVE, PASS)
HEADS = {
    FAIL: "✕ {fail} of {all} gates failed",
    INCONCLUSIVE: "! {inconclusive} of {all} gates can't be told",
    PASS: "✓ all {all} gates passed",
}


def gates_headline(verdicts: Sequence[Verdict]) -> str:
    """A block with the worst of the verdicts in its first line, and each on a line of its own."""
    if not verdicts:
        return f'<div class="verdict">{escape(NO_GATES)}</div>'
    worst = overall(verdicts)
    counts = {result: sum(v.result == result for v in verdicts) for result in ORDER}
    head = HEADS[worst].format(all=len(verdicts), **counts)
    if len(verdicts) == 1:
        head = {FAIL: "✕ the gate failed", PASS: "✓ the gate passed"}.get(
            worst, "! the gate can't be told"
        )
    ranked = sorted(verdicts, key=lambda verdict: ORDER.index(verdict.result))
    lines = "".join(f"<br><small>{_words(verdict)}</small>" for verdict in ranked)
    return f'<div class="verdict {worst}">{head}{lines}</div>'


def _words(verdict: Verdict) -> str:
    sentence = verdict.sentence().removeprefix("gate ")
    return " ".join(map(escape, sentence.split(" ")))
