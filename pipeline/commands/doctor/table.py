"""The findings for a person, what is wrong first, and for a program."""

import json
import shutil
import textwrap
from collections.abc import Iterator, Sequence

import click

from pipeline.doctor.examine import Area
from pipeline.doctor.finding import Finding, Level

MARKS: dict[Level, tuple[str, str]] = {
    "wrong": ("WRONG", "red"),
    "note": ("note", "yellow"),
    "ok": ("ok", "green"),
}
MIN_WIDTH, MAX_WIDTH = 60, 110
INDENT = 7


def show(areas: Sequence[Area]) -> None:
    """Print what is wrong, then the notes, then a line for each area in which all else is well."""
    width = max(MIN_WIDTH, min(MAX_WIDTH, shutil.get_terminal_size((100, 24)).columns))
    levels: tuple[Level, ...] = ("wrong", "note")
    for level in levels:
        for area in areas:
            for finding in area.findings:
                if finding.level == level:
                    click.echo("\n".join(lay_out(area.name, finding, width)))
    for area in areas:
        fine = [finding.what for finding in area.findings if finding.level == "ok"]
        if fine:
            click.echo("\n".join(lay_out(area.name, Finding("ok", "; ".join(fine)), width)))
    click.echo(sum_up(areas))


def lay_out(area: str, finding: Finding, width: int) -> Iterator[str]:
    """Yield the lines of a finding: the mark, what was found, why it matters, what mends it."""
    mark, colour = MARKS[finding.level]
    head = click.style(f"{mark:<{INDENT}}", fg=colour, bold=finding.level == "wrong")
    indent = " " * INDENT
    lines = list(_wrap(f"{area}: {finding.what}", width - INDENT))
    yield f"{head}{lines[0]}"
    yield from (f"{indent}{line}" for line in lines[1:])
    if finding.why:
        yield from _labelled("why", finding.why, width)
    for number, mend in enumerate(finding.mend):
        yield from _labelled("do" if number == 0 else "", mend, width)
    if finding.level != "ok":
        yield ""


def _labelled(label: str, text: str, width: int) -> Iterator[str]:
    indent = " " * INDENT
    for number, line in enumerate(_wrap(text, width - INDENT - 5)):
        yield f"{indent}{label if number == 0 else '':<5}{line}"


def _wrap(text: str, width: int) -> Iterator[str]:
    """Yield its lines; those that are too long are broken, and keep their indentation."""
    for line in text.splitlines() or [""]:
        # Names of rows and columns come with the data: a terminal must not obey one.
        line = "".join(sign if sign.isprintable() else "?" for sign in line)
        before = line[: len(line) - len(line.lstrip())]
        yield from textwrap.wrap(
            line.strip(),
            width,
            initial_indent=before,
            subsequent_indent=before,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]


def sum_up(areas: Sequence[Area]) -> str:
    """The last line: how much is wrong, and what that means."""
    levels = [finding.level for area in areas for finding in area.findings]
    num_wrong, num_notes = levels.count("wrong"), levels.count("note")
    fixable = any(finding.fix for area in areas for finding in area.findings)
    notes = "" if num_notes == 0 else f", {num_notes} note{'s' if num_notes > 1 else ''}"
    fix = "; 'reprise doctor --fix' mends what harms nothing" if fixable else ""
    if num_wrong == 0:
        return f"nothing is wrong{notes}{fix}"
    things = "one thing is" if num_wrong == 1 else f"{num_wrong} things are"
    return f"{things} wrong{notes}: something will fail until that is mended{fix}"


def to_json(areas: Sequence[Area]) -> str:
    """All findings as a list, in the order of the areas."""
    found = [
        {
            "area": area.name,
            "level": finding.level,
            "what": finding.what,
            "why": finding.why,
            "mend": list(finding.mend),
            "fixable": finding.fix is not None,
        }
        for area in areas
        for finding in area.findings
    ]
    return json.dumps(found, indent=2, ensure_ascii=False)
