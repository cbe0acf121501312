"""The report as Markdown that fits a comment on a pull request."""

from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.metrics import format_value
from pipeline.report import Report, as_text
from pipeline.report_change import (
    CHANGE,
    MODEL,
    OF_MEANS,
    change_note,
    change_rows,
    is_of_change,
    judged,
)

NUM_ROWS_OPEN = 12
PAIRED = ("metric", "before", "after", "difference", "95 % interval", "")
MARKS = {"better": "better ✅", "worse": "worse ❌", "noise": "noise", "": ""}
ROWS_ONLY = "This is about these two trained models on rows like these."


def verdict(report: Report) -> str:
    """What a reviewer wants to know, in one line."""
    found = report.comparison
    if not found:
        return "No verdict: the rows' predictions are not here."
    if found["why_not"] is not None:
        return f"No verdict: not paired, {found['why_not']}."
    statement, by_name = judged(found)
    marks: dict[str, list[str]] = {}
    for name, mark in by_name.items():
        marks.setdefault(mark, []).append(name)
    parts = [f"{word} in {', '.join(marks[word])}" for word in ("better", "worse") if word in marks]
    if not parts:
        return f"{statement}: no metric differs by more than noise."
    noise = f"; within noise: {', '.join(marks['noise'])}" if "noise" in marks else ""
    return f"{statement} is {'; '.join(parts)}{noise}."


def as_markdown(report: Report) -> str:
    """The whole report."""
    parts = [f"### {verdict(report)}", f"Compared with {report.base} (`{report.commit[:10]}`)."]
    parts += [f"> {line}" for line in report.missing]
    parts += _paired(report)
    parts += _section(
        "Other metrics", ("stage", "metric", "before", "after"), other_metrics(report)
    )
    rows = [(f"`{key}`", as_text(was), as_text(now)) for key, (was, now) in report.params.items()]
    parts += _section("Parameters", ("parameter", "before", "after"), rows)
    changes = [(change.stage, ", ".join(change.why)) for change in report.changes]
    parts += _section("Stages with other inputs", ("stage", "what changed"), changes)
    parts += _section("Columns", ("column",), [(column,) for column in report.columns])
    parts += _flips(report)
    return "\n\n".join(parts) + "\n"


def _paired(report: Report) -> list[str]:
    found = report.comparison
    if not found or found["why_not"] is not None:
        return []
    counts = found["rows"]
    note = f"{counts['shared']} test rows are in both"
    note += f" (of {counts['before']} and {counts['after']})" if _partly(counts) else ""
    note += f", {counts['relabelled']} of them with another target" if counts["relabelled"] else ""
    rows = [(*row[:-1], MARKS[row[-1]]) for row in paired_rows(report)]
    said = [f"**{MODEL}**", _table(PAIRED, rows), f"{note}. {ROWS_ONLY}"]
    if not is_of_change(found):
        return [*said, change_note(found)]
    rows = [(*row[:-1], MARKS[row[-1]]) for row in change_rows(found)]
    return [f"**{CHANGE}** (rows and seeds)", _table(OF_MEANS, rows), change_note(found), *said]


def _partly(counts: dict[str, int]) -> bool:
    return not counts["before"] == counts["after"] == counts["shared"]


def paired_rows(report: Report) -> list[tuple[str, ...]]:
    """A row a metric: name, before, after, difference, interval, mark."""
    rows: list[tuple[str, ...]] = []
    for name, each in report.comparison["metrics"].items():
        ends = [each["low"], each["high"]]
        interval = "" if None in ends else " to ".join(f"{end:+.4f}" for end in ends)
        step = f"{each['value']:+.4f}"
        before, after = format_value(each["before"]), format_value(each["after"])
        rows.append((name, before, after, step, interval, each["mark"]))
    return rows


def other_metrics(report: Report) -> list[tuple[str, str, str, str]]:
    """What differs of the metrics that are not compared row by row."""
    compared = report.comparison.get("metrics", {}) if report.comparison else {}
    return [
        (stage, name, _shown(was), _shown(now))
        for stage, metrics in report.metrics.items()
        for name, (was, now) in metrics.items()
        if was != now and not (stage == "evaluate" and name in compared)
    ]


def _flips(report: Report) -> list[str]:
    flips = report.comparison.get("flips") if report.comparison else None
    if flips is None:
        return []
    text = (
        f"**Rows:** {flips['fixed']} became right, {flips['broken']} became wrong "
        f"(McNemar's exact test: p = {flips['mcnemar_p']:.3g})."
    )
    rows = [(kind, *row) for kind, listed in flips["examples"].items() for row in listed]
    return [text, *_section("Rows that flipped", ("", "row", "target", "before", "after"), rows)]


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table under a title, folded when it is long; nothing when it is empty."""
    if not rows:
        return []
    table = _table(columns, rows)
    if len(rows) <= NUM_ROWS_OPEN:
        return [f"**{title}**\n\n{table}"]
    head = f"<details><summary>{title} ({len(rows)})</summary>"
    return [f"{head}\n\n{table}\n\n</details>"]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _shown(value: Any) -> str:
    return "none" if value is None else format_value(value)
