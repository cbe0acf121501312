"""The report as Markdown that fits a comment on a pull request."""

from collections.abc import Iterable, Sequence

from pipeline.metrics.gates import EVALUATE
from pipeline.metrics.metrics import format_value
from pipeline.report.build import Report
from pipeline.report.differences import is_seed_alone
from pipeline.report.page.markup import Cell, to_markdown
from pipeline.report.sections import ReportSection, gate_section, make_sections
from pipeline.report.statements import (
    CHANGE,
    MODEL,
    OF_MEANS,
    change_note,
    change_rows,
    is_of_change,
    judged,
    too_few_seeds,
)
from stages.evaluate.outputs.markdown import plain, table

NUM_ROWS_OPEN = 12
# GitHub takes 65,536 characters; what posts it may add some.
MAX_LENGTH = 60_000
NUMS_ROWS = (100, 40, 12, 3)
REST = "The rest is in `report.html`."
PAIRED = ("metric", "before", "after", "difference", "95 % interval", "")
MARKS = {"better": "better ✅", "worse": "worse ❌", "noise": "noise", "": ""}
ROWS_ONLY = "This is about these two trained models on rows like these."


def verdict(report: Report) -> str:
    """The result of the comparison in one line, for a reviewer."""
    found = report.comparison
    if stale := report.stale.get(EVALUATE):
        return f"No verdict: {'; '.join(stale)}."
    if not found:
        return "No verdict: the rows' predictions are not here."
    if found["why_not"] is not None:
        return f"No verdict: not paired, {found['why_not']}."
    if (seeds := too_few_seeds(found)) is not None:
        return f"No verdict on this change: {seeds}. What the rows say of both models stands below."
    if is_seed_alone(report.params, report.changes):
        return "No change to judge: only the seed differs. Below stands what the luck of it does."
    statement, by_name = judged(found)
    marks: dict[str, list[str]] = {}
    for name, mark in by_name.items():
        marks.setdefault(mark, []).append(name)
    parts = [f"{word} in {', '.join(marks[word])}" for word in ("better", "worse") if word in marks]
    if not any(by_name.values()):
        return f"No verdict: there is no interval of {', '.join(by_name)}."
    if not parts:
        return f"{statement}: no metric differs by more than noise."
    noise = f"; within noise: {', '.join(marks['noise'])}" if "noise" in marks else ""
    return f"{statement} is {'; '.join(parts)}{noise}."


def as_markdown(report: Report) -> str:
    """The whole report, short enough for a comment: of tables too long for one, the first rows."""
    for num_rows in NUMS_ROWS:
        text = _whole(report, num_rows)
        if len(text) <= MAX_LENGTH:
            return text
    return text[:MAX_LENGTH] + f"\n\n{REST}\n"


def _whole(report: Report, num_rows: int) -> str:
    parts = [f"### {verdict(report)}"]
    parts.append(f"Compared with {plain(report.base)} (`{report.commit[:10]}`).")
    parts += [f"> {_line(line)}" for line in report.missing]
    parts += _paired(report)
    for section in make_sections(report):
        parts += _shown(section, num_rows)
    both = [path for path, sides in report.curves.items() if None not in sides]
    if both:
        confusion = " and confusion" if any("confusion" in path for path in both) else ""
        parts.append(f"Training curves{confusion} side by side are in `report.html`.")
    gates = gate_section(report)
    if gates is not None:
        parts += _shown(gates, num_rows)
    return "\n\n".join(parts) + "\n"


def _paired(report: Report) -> list[str]:
    found = report.comparison
    if not found or found["why_not"] is not None:
        return []
    rows = [(*row[:-1], MARKS[row[-1]]) for row in paired_rows(report)]
    said = [f"**{MODEL}**", table(PAIRED, _cells(rows)), rows_note(found["rows"])]
    if not is_of_change(found):
        return [*said, change_note(found)]
    rows = [(*row[:-1], MARKS[row[-1]]) for row in change_rows(found)]
    return [
        f"**{CHANGE}** (rows and seeds)",
        table(OF_MEANS, _cells(rows)),
        change_note(found),
        *said,
    ]


def rows_note(counts: dict[str, int]) -> str:
    """The number of test rows that were compared, and its meaning."""
    note = f"{counts['shared']} test rows are in both"
    note += f" (of {counts['before']} and {counts['after']})" if _partly(counts) else ""
    note += f", {counts['relabelled']} of them with another target" if counts["relabelled"] else ""
    return f"{note}. {ROWS_ONLY}"


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


def _shown(section: ReportSection, num_rows: int) -> list[str]:
    """A section under its title, folded when its table is long."""
    text = [_line(section.text)] if section.text else []
    if not section.rows:
        return [f"**{section.title}**", *text]
    shown = table(section.columns, _cells(section.rows[:num_rows]))
    if len(section.rows) > num_rows:
        shown += f"\n\n{len(section.rows) - num_rows} more are in report.html."
    if len(section.rows) <= NUM_ROWS_OPEN:
        return [f"**{section.title}**", *text, shown]
    folded = f"<details><summary>{len(section.rows)} rows</summary>\n\n{shown}\n\n</details>"
    return [f"**{section.title}**", *text, folded]


def _cells(rows: Iterable[Sequence[Cell]]) -> list[list[str]]:
    return [[to_markdown(cell) for cell in row] for row in rows]


def _line(text: str) -> str:
    """A sentence with names in it, at any length."""
    return " ".join(plain(part) for part in text.split(" "))
