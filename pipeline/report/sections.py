"""The sections of the report after the table of metrics, as the pages show them, in this order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.metrics.gates import overall
from pipeline.metrics.metrics import format_value
from pipeline.report.build import Report
from pipeline.report.differences import as_text
from pipeline.report.machine import MACHINES
from pipeline.report.page.markup import Cell, Code, joined

# Below such a p McNemar's test tells two models apart, as an interval of 95 % does without 0.
LIMIT = 0.05
DRIFT = "Of the train rows, in standard deviations before; the largest difference first."
DRIFT_COLUMNS = ("column", "mean", "spread", "empty", "categories", "")
MACHINE_COLUMNS = ("", "before", "after")


@dataclass(frozen=True)
class ReportSection:
    """A title, a text, and a table; the pages fold it where it is long, and escape all of it."""

    title: str
    text: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()


def make_sections(report: Report) -> list[ReportSection]:
    """All that have something to say, except pictures and gates, which stand after them."""
    params = [(Code(key), as_text(was), as_text(now)) for key, (was, now) in report.params.items()]
    changes = [(change.stage, joined(change.why)) for change in report.changes]
    machines = [(name, was or "–", now or "–") for name, (was, now) in report.machines.items()]
    found = [
        ReportSection("Machines", MACHINES if machines else "", MACHINE_COLUMNS, tuple(machines)),
        ReportSection(
            "Other metrics", "", ("stage", "metric", "before", "after"), other_metrics(report)
        ),
        ReportSection("Parameters", "", ("parameter", "before", "after"), tuple(params)),
        ReportSection("Stages that reran, and why", "", ("stage", "what changed"), tuple(changes)),
        *_data(report.data),
        *_slices(report.slices),
        *_flips(report.comparison),
    ]
    return [section for section in found if section.rows or section.text]


def gate_section(report: Report) -> ReportSection | None:
    """All gates with what they say, and the worst of it in the title."""
    if not report.gates:
        return None
    rows = tuple((g.metric, g.written_value(), g.gate, g.result, g.why) for g in report.gates)
    columns = ("metric", "value", "gate", "verdict", "why")
    return ReportSection(f"Gates: {overall(report.gates)}", "", columns, rows)


def other_metrics(report: Report) -> tuple[tuple[str, str, str, str], ...]:
    """The differences of the metrics that are not compared row by row."""
    compared = report.comparison.get("metrics", {}) if report.comparison else {}
    return tuple(
        (f"{stage} (stale)" if stage in report.stale else stage, name, _shown(was), _shown(now))
        for stage, metrics in report.metrics.items()
        for name, (was, now) in metrics.items()
        if was != now and not (stage == "evaluate" and name in compared)
    )


def _data(data: Mapping[str, Any]) -> list[ReportSection]:
    if not data:
        return []
    if data.get("same"):
        return [ReportSection("Data", "The prepared data is the same on both sides.")]
    counts = ("before", "after", "new", "gone", "moved_in")
    # Without a key column, rows are numbers, which name other rows in another file.
    rows = [(row["split"], *(f"{row[n]:,}" for n in counts if n in row)) for row in data["rows"]]
    heads = ("split", "before", "after", "new", "gone", "from another split")[: len(rows[0])]
    columns: list[tuple[Cell, ...]] = [
        (Code(c["column"]), *_ends(c["before"], c["after"])) for c in data["columns"]
    ]
    columns += [(("class ", Code(name)), "–", "there") for name in data["classes"]["came"]]
    columns += [(("class ", Code(name)), "there", "–") for name in data["classes"]["went"]]
    drift = tuple(_drift(column) for column in data["drift"])
    found = [ReportSection("Data: rows", "", heads, tuple(rows))]
    if columns:
        head = ("column or class", "before", "after")
        found.append(ReportSection("Data: columns and classes", "", head, tuple(columns)))
    left_out = [f"Not compared: {line}." for line in data.get("not_compared", [])]
    if drift or left_out:
        num = sum(column["drifted"] for column in data["drift"])
        beyond = f" ({num} of {len(drift)} beyond its limits)" if drift else ""
        title = f"Data: drift by column{beyond}"
        text = " ".join([*([DRIFT] if drift else []), *left_out])
        found.append(ReportSection(title, text, DRIFT_COLUMNS, drift))
    return found


def _ends(before: str | None, after: str | None) -> tuple[str, str]:
    return before or "–", after or "–"


def _drift(column: Mapping[str, Any]) -> tuple[Cell, ...]:
    mean = "" if column["shift"] is None else f"{column['shift']:+.2g}"
    spread = "" if column["spread"] is None else f"× {column['spread']:.3g}"
    before, after = column["empty"]
    empty = "" if before == after == 0 else f"{before:.1%} → {after:.1%}"
    shares = [(word, column[word]) for word in ("new", "gone") if column[word]]
    categories = ", ".join(f"{share:.1%} of rows in {word} ones" for word, share in shares)
    mark = "drift" if column["drifted"] else ""
    return Code(column["column"]), mean, spread, empty, categories, mark


def _slices(slices: Mapping[str, Any]) -> list[ReportSection]:
    if not slices or slices["why_not"] is not None or not slices["looked_at"]:
        return []
    looked, worse, metric = slices["looked_at"], slices["worse"], slices["metric"]
    verb = "are" if len(worse) > 1 else "is"
    said = f"{len(worse) or 'None'} of {looked} slices {verb} worse"
    text = f"{said} in {metric} beyond noise: at 5 % over all of them (Holm's correction)."
    if slices["skipped"]:
        text += f" Not judged: {slices['skipped']}, of fewer than 30 shared rows or no interval."
    head = ("slice", "rows", "before", "after", "difference", "95 % interval", "p")
    rows = tuple(
        (
            (Code(s["column"] or repr("")), f": {s['label']}"),
            f"{s['rows']:,}",
            format_value(s["before"]),
            format_value(s["after"]),
            f"{s['difference']['value']:+.4f}",
            f"{s['difference']['low']:+.4f} to {s['difference']['high']:+.4f}",
            f"{s['p']:.2g}",
        )
        for s in worse
    )
    return [ReportSection("Slices that got worse", text, head, rows)]


def _flips(comparison: Mapping[str, Any]) -> list[ReportSection]:
    flips = comparison.get("flips")
    if flips is None:
        return []
    text = (
        f"{flips['fixed']} became right, {flips['broken']} became wrong "
        f"(McNemar's exact test: p = {flips['mcnemar_p']:.3g})."
    )
    text += _disagreement(comparison)
    rows = [(kind, *row) for kind, listed in flips["examples"].items() for row in listed]
    head = ("", "row", "target", "before", "after")
    return [ReportSection("Rows that flipped", text, head, tuple(rows))]


def _disagreement(comparison: Mapping[str, Any]) -> str:
    """The reason why the mark of accuracy and McNemar's test say different things; or nothing."""
    flips, accuracy = comparison["flips"], comparison["metrics"].get("accuracy")
    if accuracy is None or not accuracy["mark"]:
        return ""
    mark, moved = accuracy["mark"], flips["fixed"] + flips["broken"]
    told_apart = flips["mcnemar_p"] < LIMIT
    if told_apart == (mark != "noise"):
        return ""
    if told_apart:
        return (
            f" The test tells the models apart, and accuracy is marked '{mark}': the interval "
            "above draws the rows anew, and its end lies close to 0. Take it as close."
        )
    return (
        f" Accuracy is marked '{mark}' all the same: its interval draws the rows anew, while the "
        f"exact test looks at the {moved} rows alone that only one of the models has right. Of so "
        "few it is the more careful one: more test rows would settle it."
    )


def _shown(value: Any) -> str:
    return "none" if value is None else format_value(value)
