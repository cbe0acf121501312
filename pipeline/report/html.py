"""`report.md` and `report.html`: the page is one file, with its pictures inside, for any width."""

import csv
import io
from collections.abc import Sequence
from html import escape as escape_signs
from pathlib import Path

from pipeline.common.atomic import write_whole
from pipeline.report.build import Report
from pipeline.report.markdown import (
    NUM_ROWS_OPEN,
    PAIRED,
    as_markdown,
    paired_rows,
    rows_note,
    verdict,
)
from pipeline.report.markup import Cell, to_html, to_text
from pipeline.report.sections import ReportSection, gate_section, make_sections
from pipeline.report.statements import (
    CHANGE,
    MODEL,
    OF_MEANS,
    change_note,
    change_rows,
    is_of_change,
)
from stages.evaluate.outputs.markdown import one_line

WIDTH, HEIGHT, MARGIN = 420, 220, 36
CURVES = ("data/train/plots/loss.csv", "data/train/plots/metric.csv")
CONFUSION = "data/evaluate/plots/confusion.csv"
MAX_CLASSES = 30
# Of more characters a cell may break into lines.
MAX_SHORT = 40
# What is shown in a colour.
WORDS = ("better", "worse", "noise", "pass", "fail", "inconclusive", "drift")
HEAD = (
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    "<title>What this change did</title>"
)
STYLE = """
:root { color-scheme: light dark; --line: #8884; --before: #b36b00; --after: #0a66c2; }
:root { --good: #1a7f37; --bad: #d1242f; }
@media (prefers-color-scheme: dark) {
  :root { --before: #f0a848; --after: #6cb2ff; --good: #4ac26b; --bad: #ff7b72; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
td, th { border: 1px solid var(--line); padding: .3rem .6rem; text-align: left; }
td, th { white-space: nowrap; } td.long { white-space: normal; min-width: 18rem; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; } h1 { font-size: 1.5rem; } table { font-size: .75rem; }
  td, th { padding: .2rem .3rem; } th, td.interval { white-space: normal; }
  td.long { min-width: 12rem; }
}
td.number, .matrix td { text-align: right; font-variant-numeric: tabular-nums; }
.better, .pass { color: var(--good); } .worse, .fail { color: var(--bad); }
.noise { opacity: .7; } .drift, .inconclusive { color: var(--before); }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } svg { max-width: 100%; height: auto; }
.before { stroke: var(--before); } .after { stroke: var(--after); }
path { fill: none; stroke-width: 2; } .axis { stroke: var(--line); } text { fill: currentColor; }
.key-before { color: var(--before); } .key-after { color: var(--after); }
"""


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write both files into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (("report.md", as_markdown(report)), ("report.html", as_page(report))):
        write_whole(folder / name, text)
        written.append(folder / name)
    return written


def as_page(report: Report) -> str:
    """The report as one HTML file that loads nothing."""
    parts = [f"<h1>{escape_signs(verdict(report))}</h1>"]
    base = escape(report.base)
    parts.append(f"<p>Compared with {base} (<code>{report.commit[:10]}</code>).</p>")
    parts += [f"<p>{' '.join(map(escape, line.split(' ')))}</p>" for line in report.missing]
    if report.comparison and report.comparison["why_not"] is None:
        parts += _statements(report)
    for section in make_sections(report):
        parts += _section(section)
    parts += _pictures(report)
    gates = gate_section(report)
    if gates is not None:
        parts += _section(gates)
    body = "".join(parts)
    return (
        f'<!doctype html><html lang="en"><head>{HEAD}<style>{STYLE}</style></head>{body}</html>\n'
    )


def escape(text: str) -> str:
    """A name or a value as text of the page, on one line."""
    return escape_signs(one_line(text))


def _section(section: ReportSection) -> list[str]:
    """A section under its title; a long table is folded."""
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape_signs(section.text)}</p>"] if section.text else []
    if section.rows:
        table = _table(section.columns, section.rows)
        if len(section.rows) > NUM_ROWS_OPEN:
            head = f"<summary>{len(section.rows)} rows</summary>"
            table = f"<details>{head}{table}</details>"
        parts.append(table)
    return parts


def _statements(report: Report) -> list[str]:
    found = report.comparison
    note = f"<p>{escape_signs(change_note(found)).replace('`', '')}</p>"
    parts = []
    if is_of_change(found):
        parts = [f"<h2>{CHANGE}</h2>", _table(OF_MEANS, change_rows(found)), note]
    parts += [f"<h2>{MODEL}</h2>", _table(PAIRED, paired_rows(report))]
    parts.append(f"<p>{rows_note(found['rows'])}</p>")
    return parts if is_of_change(found) else [*parts, note]


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(cell: Cell) -> str:
    text = to_text(cell)
    first = text.split(" ")[0]
    kind = first if first in WORDS else "long" if len(text) > MAX_SHORT else ""
    kind = "interval" if " to " in text and text[:1] in "+-" else kind
    kind = "number" if text.lstrip("+-× ").replace(".", "").replace(",", "").isdigit() else kind
    return f'<td class="{kind}">{to_html(cell)}</td>'


def _pictures(report: Report) -> list[str]:
    parts = []
    curves = [_curve(path, *report.curves[path]) for path in CURVES if path in report.curves]
    if any(curves):
        key = '<span class="key-before">before</span>, <span class="key-after">after</span>'
        parts.append(f"<h2>Training</h2><p>On validation, epoch by epoch: {key}.</p>")
        parts.append(f'<div class="pictures">{"".join(curves)}</div>')
    sides = [_matrix(text) for text in report.curves.get(CONFUSION, (None, None))]
    if all(sides):
        titles = [
            f"<div><h3>{t}</h3>{m}</div>" for t, m in zip(("Before", "After"), sides, strict=True)
        ]
        parts.append("<h2>Confusion</h2><p>How often each class was taken for which: actual down, ")
        parts.append(f'predicted across.</p><div class="pictures">{"".join(titles)}</div>')
    return parts


def _points(text: str | None) -> list[tuple[float, float]]:
    rows = csv.DictReader(io.StringIO(text or ""))
    return [(float(row["epoch"]), float(row["validation"])) for row in rows]


def _curve(path: str, before: str | None, after: str | None) -> str:
    """One plot of both sides' validation curve, drawn as SVG."""
    sides = {"before": _points(before), "after": _points(after)}
    points = [point for side in sides.values() for point in side]
    if not points:
        return ""
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))

    def place(x: float, y: float) -> str:
        across = MARGIN + (x - left) / ((right - left) or 1) * (WIDTH - 2 * MARGIN)
        up = HEIGHT - MARGIN - (y - low) / ((high - low) or 1) * (HEIGHT - 2 * MARGIN)
        return f"{across:.1f},{up:.1f}"

    lines = "".join(
        f'<path class="{name}" d="M{" L".join(place(*point) for point in side)}"/>'
        for name, side in sides.items()
        if side
    )
    bottom, top = HEIGHT - MARGIN, MARGIN
    axes = f'<path class="axis" d="M{MARGIN},{top} V{bottom} H{WIDTH - MARGIN}"/>'
    words = [(4, top, f"{high:.3g}"), (4, bottom, f"{low:.3g}"), (MARGIN, 16, Path(path).stem)]
    words += [(MARGIN, HEIGHT - 12, f"epoch {left:g}"), (WIDTH - 56, HEIGHT - 12, f"{right:g}")]
    texts = "".join(f'<text x="{x}" y="{y}" font-size="12">{t}</text>' for x, y, t in words)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">{axes}{lines}{texts}</svg>'
    )


def _matrix(text: str | None) -> str:
    """A confusion matrix, by number of rows: actual down, predicted across."""
    pairs = [(row["actual"], row["predicted"]) for row in csv.DictReader(io.StringIO(text or ""))]
    names = sorted({name for pair in pairs for name in pair}, key=lambda n: (len(n), n))
    if not names or len(names) > MAX_CLASSES:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><th>{escape(actual)}</th>"
        + "".join(f"<td>{pairs.count((actual, name)) or ''}</td>" for name in names)
        + "</tr>"
        for actual in names
    )
    return f'<table class="matrix"><tr><th></th>{head}</tr>{body}</table>'
