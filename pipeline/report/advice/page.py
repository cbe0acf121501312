"""The report as one page that works offline, in the style of the others."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.report.advice.content import AXES, SLICES, Report
from pipeline.report.advice.markdown import SLICE_TITLE, notes, slice_heads
from pipeline.report.page.chart import Series, draw_chart
from pipeline.report.page.markup import Cell, Code
from pipeline.report.page.page import escape, make_page, paragraph, table
from pipeline.report.page.strips import Strip, draw_forest


def to_html(report: Report) -> str:
    """The page."""
    return make_page("What to improve first", _body(report))


def draw_section(report: Report) -> Iterator[str]:
    """Yield the findings in short, for a page of other things."""
    yield paragraph(report.headline())
    if report.sure:
        yield _forest(report, report.sure, 1)
    yield paragraph(f"{report.luck()} The whole: .reprise/advise/report.html", "soft")


def _body(report: Report) -> Iterator[str]:
    content = report.content
    yield "<h1>What to improve first</h1>"
    yield paragraph(report.measured_how(), "soft")
    alarm = any(each["is_alarm"] for each in report.advice)
    kind = "warning" if alarm else "passed" if report.sure else ""
    yield paragraph(report.headline(), f"verdict {kind}".strip())
    yield paragraph(f"{report.luck()} {report.limits()}")
    if report.sure:
        yield "<h2>Advice</h2>"
        yield _forest(report, report.sure, 1)
    if report.unknown:
        yield "<h2>Measured as long, and no better for sure</h2>"
        yield _forest(report, report.unknown, 1 + len(report.sure))
    yield "<ol>" + "".join(_item(each) for each in report.advice) + "</ol>"
    if report.slices:
        yield f"<h2>{SLICE_TITLE}</h2>"
        yield paragraph(SLICES) + table(slice_heads(report), report.slices)
    yield "<h2>What else was tried</h2>"
    yield _axes(report)
    if content["curve"] is not None:
        yield "<h2>More rows</h2>"
        curve = content["curve"]
        points = list(zip(map(float, curve["sizes"]), curve["values"], strict=True))
        chart = (content["metric"], "rows to learn from", content["metric"])
        yield draw_chart(*chart, [Series(content["metric"], points)], counts=True)
    for line in notes(report):
        yield paragraph(line)
    yield paragraph(report.meaning(), "soft")


def _forest(report: Report, found: Sequence[dict[str, Any]], first: int) -> str:
    strips = [
        Strip(
            name=_name(each, number),
            value=each["gain"],
            low=each["low"],
            high=each["high"],
            text=f"{each['gain']:+.4f}",
            ends=f"{each['low']:+.4f} to {each['high']:+.4f}; helps {each['probability']:.0%}",
            note=f"{each['axis']}; {each['cost']}",
        )
        for number, each in enumerate(found, first)
    ]
    return draw_forest(("change", f"gain in {report.content['metric']}"), strips, 0.0)


def _name(advice: dict[str, Any], number: int) -> Cell:
    change = advice["change"]
    return (f"{number}. ", Code(change) if advice["applies"] else change)


def _item(advice: dict[str, Any]) -> str:
    words = " ".join(escape(word) for word in advice["evidence"].split(" "))
    return f"<li>{words}</li>"


def _axes(report: Report) -> str:
    by_axis = {each["axis"]: each for each in report.content["axes"]}
    rows = [
        (
            axis,
            str(tried["num_changes"]),
            Code(tried["best"]),
            f"{tried['gain']:+.4f}",
            f"{tried['low']:+.4f} to {tried['high']:+.4f}",
        )
        for axis in AXES
        if (tried := by_axis.get(axis)) is not None
    ]
    share = report.content["screened_share"]
    of_rows = "all rows" if share == 1 else f"{share:.4g} of the rows"
    words = (
        f"In short, once on {of_rows}, which flatters the best of many: each axis by its best "
        "change."
    )
    heads = ("axis", "changes", "the best of them", "gain", "95 % interval")
    return paragraph(words) + table(heads, rows)
