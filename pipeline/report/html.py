"""`report.md` and `report.html`: the page is one file, with its pictures inside, for any width."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.common.atomic import write_output
from pipeline.metrics.metrics import format_value
from pipeline.report.build import Report
from pipeline.report.markdown import as_markdown, rows_note, verdict
from pipeline.report.page.chart import Series, draw_chart
from pipeline.report.page.confusion import draw_confusion
from pipeline.report.page.page import escape, make_page, paragraph, table_folded_if_long
from pipeline.report.page.strips import Strip, draw_differences
from pipeline.report.page.verdict import gates_headline
from pipeline.report.sections import ReportSection, gate_section, make_sections
from pipeline.report.statements import (
    CHANGE,
    MODEL,
    change_note,
    is_of_change,
)

CURVES = ("data/train/plots/loss.csv", "data/train/plots/metric.csv")
CONFUSION = "data/evaluate/plots/confusion.csv"
TITLE = "What this change did"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write both files into `folder`, each whole or not at all. Raises UserError."""
    written = []
    for name, text in (("report.md", as_markdown(report)), ("report.html", as_page(report))):
        write_output(folder / name, text)
        written.append(folder / name)
    return written


def as_page(report: Report) -> str:
    """The report as one HTML file that loads nothing."""
    parts = [f"<h1>{escape(verdict(report))}</h1>"]
    base = escape(report.base)
    commit = f"<code>{report.commit[:10]}</code>"
    parts.append(f'<p class="soft">Compared with {base} ({commit}).</p>')
    parts += [gates_headline(report.gates)] if report.gates else []
    parts += [paragraph(line) for line in report.missing]
    if report.comparison and report.comparison["why_not"] is None:
        parts += _statements(report)
    for section in make_sections(report):
        parts += _section(section)
    parts += _pictures(report)
    gates = gate_section(report)
    if gates is not None:
        parts += _section(gates)
    return make_page(TITLE, parts)


def _section(section: ReportSection) -> list[str]:
    """A section under its title; a long table is folded."""
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [paragraph(section.text)] if section.text else []
    parts += [table_folded_if_long(section.columns, section.rows)] if section.rows else []
    return parts


def _statements(report: Report) -> list[str]:
    found = report.comparison
    note = paragraph(change_note(found).replace("`", ""))
    parts = []
    if is_of_change(found):
        changes = {name: each["change"] for name, each in found["metrics"].items()}
        parts = [f"<h2>{CHANGE}</h2>", _forest(found, changes), note]
    parts += [f"<h2>{MODEL}</h2>", _forest(found, found["metrics"])]
    parts.append(paragraph(rows_note(found["rows"])))
    return parts if is_of_change(found) else [*parts, note]


def _forest(found: Mapping[str, Any], differences: Mapping[str, Any]) -> str:
    """The differences of all metrics, with better to the right, and what they lie between."""
    strips = []
    for name, each in differences.items():
        if each is None:
            continue
        sign = -1 if found["metrics"][name]["less_is_better"] else 1
        low = high = None
        ends = "no interval"
        if each["low"] is not None and each["high"] is not None:
            low, high = sorted((sign * each["low"], sign * each["high"]))
            ends = f"{each['low']:+.4f} to {each['high']:+.4f}"
        text = f"{each['value']:+.4f}"
        note = f"{format_value(each['before'])} → {format_value(each['after'])}"
        strips.append(Strip(name, sign * each["value"], low, high, text, ends, note, each["mark"]))
    return draw_differences(("metric", "difference, 95 %"), strips)


def _pictures(report: Report) -> list[str]:
    parts = []
    names = ("loss", _monitored(report))
    curves = [
        _curve(name, *report.curves[path])
        for name, path in zip(names, CURVES, strict=True)
        if path in report.curves
    ]
    if any(curves):
        parts.append("<h2>Training</h2><p>On validation, epoch by epoch.</p>")
        parts.append(f'<div class="pictures">{"".join(curves)}</div>')
    sides = [draw_confusion(_pairs(text)) for text in report.curves.get(CONFUSION, (None, None))]
    if all(sides):
        titles = [
            f"<div><h3>{t}</h3>{m}</div>" for t, m in zip(("Before", "After"), sides, strict=True)
        ]
        parts.append("<h2>Confusion</h2><p>How often each class was taken for which: actual down, ")
        parts.append("predicted across; the stronger the shade, the more of the actual class.</p>")
        parts.append(f'<div class="pictures">{"".join(titles)}</div>')
    return parts


def _monitored(report: Report) -> str:
    """The name of the metric that train has looked at on the validation rows."""
    start, loss = "validation_", "validation_loss"
    names = [n for n in report.metrics.get("train", {}) if n.startswith(start) and n != loss]
    return names[0].removeprefix(start) if names else "metric"


def _curve(name: str, before: str | None, after: str | None) -> str:
    """One plot of both sides' validation curve."""
    sides = [Series("after", _points(after)), Series("before", _points(before))]
    return draw_chart(f"Validation {name}", "epoch", name, sides, counts=True)


def _points(text: str | None) -> list[tuple[float, float]]:
    rows = csv.DictReader(io.StringIO(text or ""))
    return [(float(row["epoch"]), float(row["validation"])) for row in rows]


def _pairs(text: str | None) -> list[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(text or ""))
    return [(row["actual"], row["predicted"]) for row in rows]
