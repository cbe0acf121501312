"""The report as Markdown, and as lines for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.report.advice.content import Report
from stages.evaluate.outputs.markdown import code, plain

HEADS = ("", "axis", "change", "gain [95 %]", "helps", "cost")


def to_markdown(report: Report) -> str:
    """The whole report."""
    parts = ["# What to improve first", plain(report.headline())]
    parts += [plain(report.measured_how()), plain(f"{report.luck()} {report.limits()}")]
    if report.sure:
        parts += ["## Advice", _table(report, report.sure, 1)]
    if report.unknown:
        parts += ["## Measured as long, and no better for sure"]
        parts += [_table(report, report.unknown, 1 + len(report.sure))]
    parts += [plain(f"{n}. {each['evidence']}") for n, each in enumerate(report.advice, 1)]
    parts += ["## What else was tried", *(plain(f"- {line}") for line in report.axes())]
    parts += [*map(plain, notes(report)), plain(report.meaning())]
    return "\n\n".join(parts) + "\n"


def notes(report: Report) -> Iterator[str]:
    """Yield what limits the findings, and where more of them are."""
    yield from report.content["notes"]
    curve = report.content["curve"]
    if curve is not None:
        pairs = zip(curve["sizes"], curve["values"], strict=True)
        shown = ", ".join(f"{value:.4g} of {size:,} rows" for size, value in pairs)
        yield f"The learning curve: {report.content['metric']} {shown}."
    if num := report.content["num_suspects"]:
        yield (
            f"{num} labels are in doubt; the first 50 rows to look at are in "
            ".reprise/advise/suspects.csv."
        )
    if num := report.content["num_untried"]:
        yield f"{num} changes were not tried: the budget had no room for them."


def _table(report: Report, found: Sequence[dict[str, Any]], first: int) -> str:
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    for number, each in enumerate(found, first):
        cells = (str(number), *_cells(report, each))
        written = [
            code(text) if at == 2 and each["applies"] else plain(text)
            for at, text in enumerate(cells)
        ]
        lines.append("| " + " | ".join(written) + " |")
    return "\n".join(lines)


def _cells(report: Report, advice: dict[str, Any]) -> tuple[str, ...]:
    helps = f"{advice['probability']:.0%}"
    return advice["axis"], advice["change"], report.gain(advice), helps, advice["cost"]


def show(report: Report) -> None:
    """Print the report."""
    console = Console(highlight=False)
    console.print(Text(f"\n{report.headline()}", style="bold"))
    console.print(Text(f"{report.measured_how()}\n{report.luck()}"))
    for title, found, first in (
        ("", report.sure, 1),
        ("Measured as long, and no better for sure:", report.unknown, 1 + len(report.sure)),
    ):
        if not found:
            continue
        if title:
            console.print(Text(title, style="bold"))
        table = Table(*HEADS)
        for number, each in enumerate(found, first):
            table.add_row(str(number), *map(Text, _cells(report, each)))
        console.print(table)
    for line in [*report.axes(), *notes(report), report.meaning()]:
        console.print(Text(line))
    applicable = [n for n, each in enumerate(report.advice, 1) if each["applies"]]
    if applicable:
        console.print(Text(f"'reprise advise --apply {applicable[0]}' writes it to params.yaml"))
