"""The report as Markdown, and as lines for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from pipeline.report.advice.content import SLICES, Report
from stages.evaluate.outputs.markdown import code, plain

SLICE_TITLE = "Where it is worst, and no gain is known"
HEADS = ("", "axis", "change", "gain [95 %]", "helps", "cost")


def to_markdown(report: Report) -> str:
    """The whole report."""
    parts = ["# What to improve first", sentence(report.headline())]
    parts += [sentence(report.measured_how()), sentence(f"{report.luck()} {report.limits()}")]
    if report.sure:
        parts += ["## Advice", _table(report, report.sure, 1)]
    if report.unknown:
        parts += ["## Measured as long, and no better for sure"]
        parts += [_table(report, report.unknown, 1 + len(report.sure))]
    parts += [f"{n}. {sentence(each['evidence'])}" for n, each in enumerate(report.advice, 1)]
    if report.slices:
        heads = slice_heads(report)
        lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        lines += ["| " + " | ".join(map(plain, cells)) + " |" for cells in report.slices]
        parts += [f"## {SLICE_TITLE}", sentence(SLICES), "\n".join(lines)]
    parts += ["## What else was tried", *(f"- {sentence(line)}" for line in report.axes())]
    parts += [*map(sentence, notes(report)), sentence(report.meaning())]
    return "\n\n".join(parts) + "\n"


def slice_heads(report: Report) -> tuple[str, ...]:
    """The heads of the table of slices."""
    metric = report.content["metric"]
    return ("data", "rows", f"{metric} there [95 %]", f"{metric} on all rows")


def sentence(text: str) -> str:
    """A sentence of any length as Markdown in which no name is markup."""
    return " ".join(plain(word) for word in text.split(" "))


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
            f"Labels in doubt: {num}. The first rows to look at are in "
            ".reprise/advise/suspects.csv."
        )
    if num := report.content["num_untried"]:
        yield f"Not tried, since the budget had no room: {num} changes."


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
    console.print(Text(f"\n{report.headline()}\n", style="bold"))
    for title, found, first in (
        ("", report.sure, 1),
        ("Measured as long, and no better for sure:", report.unknown, 1 + len(report.sure)),
    ):
        if found and title:
            console.print(Text(title, style="bold"))
        for number, each in enumerate(found, first):
            axis, change, gain, helps, cost = _cells(report, each)
            style = "yellow" if each["is_alarm"] else "green" if each["sure"] else ""
            console.print(Text(f"{number}. {axis}: {change}", style=style))
            metric = report.content["metric"]
            said = Text(f"{gain} {metric}; helps {helps}; cost: {cost}\n")
            console.print(Padding(said, (0, 0, 0, 4)))
    if report.slices:
        console.print(Text(f"{SLICE_TITLE}:", style="bold"))
        for which, rows, value, whole in report.slices:
            line = (
                f"data: {which} ({rows} rows): {report.content['metric']} {value}, of all {whole}"
            )
            console.print(Text(line))
        console.print(Text(f"{SLICES}\n"))
    sentences = [report.measured_how(), report.luck(), *report.axes(), *notes(report)]
    for line in [*sentences, report.meaning()]:
        console.print(Text(line))
    applicable = [n for n, each in enumerate(report.sure, 1) if each["applies"]]
    if applicable:
        console.print(Text(f"'reprise advise --apply {applicable[0]}' writes it to params.yaml"))
