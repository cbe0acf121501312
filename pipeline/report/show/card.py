"""The sections of `card.md` as HTML: headings, paragraphs, lists and tables of the card's own form.

Its names are escaped in Markdown as `stages.evaluate.outputs.markdown` does; here they are text.
"""

import re
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby

from pipeline.report.page.markup import Code, to_text
from pipeline.report.page.page import table_folded_if_long

# Code between fences of backticks, or a sign after a backslash.
_INLINE = re.compile(r"(?P<fence>`+)(?P<code>.+?)(?<!`)(?P=fence)(?!`)|\\(?P<sign>[^\w\s]|_)")
_CELL = re.compile(r"(?<!\\)\|")


def card_sections(text: str) -> dict[str, str]:
    """The HTML of each section of the card, by its title; what stands before the first by ''."""
    found: dict[str, str] = {}
    for number, section in enumerate(re.split(r"^## ", f"\n{text}", flags=re.MULTILINE)):
        title, _, body = section.partition("\n") if number else ("", "", section)
        found[title.strip()] = "".join(_blocks(body.splitlines()))
    return found


def inline(text: str) -> str:
    """A line of the card, of any length, as HTML: code, and all else as text."""
    return "".join(
        f"<code>{escape(part)}</code>" if isinstance(part, Code) else escape(part)
        for part in _parts(text)
    )


def _parts(text: str) -> tuple[str, ...]:
    parts: list[str] = []
    end = 0
    for match in _INLINE.finditer(text):
        parts.append(text[end : match.start()])
        code = match["code"]
        parts.append(match["sign"] if code is None else Code(_code(code)))
        end = match.end()
    return tuple(part for part in (*parts, text[end:]) if part)


def _code(text: str) -> str:
    """The text between two fences; a blank on each side only keeps them apart."""
    if text.startswith(" ") and text.endswith(" ") and text.strip():
        text = text[1:-1]
    return text.replace("\\|", "|")


def _blocks(lines: Iterable[str]) -> Iterator[str]:
    for kind, group in groupby(lines, _kind):
        block = list(group)
        if kind == "table":
            yield _table(block)
        elif kind == "list":
            yield f"<ul>{''.join(f'<li>{inline(line[2:])}</li>' for line in block)}</ul>"
        elif kind == "text":
            yield f"<p>{inline(' '.join(block))}</p>"


def _kind(line: str) -> str:
    if line.startswith("# "):
        return "title"
    starts = {"|": "table", "- ": "list"}
    return next((kind for sign, kind in starts.items() if line.startswith(sign)), "") or (
        "text" if line.strip() else ""
    )


def _table(lines: list[str]) -> str:
    """A table of a head, a rule and rows; folded where it is long."""
    head, _, *rows = [
        _CELL.split(line.strip().removeprefix("|").removesuffix("|")) for line in lines
    ]
    columns = [to_text(_parts(cell.strip())) for cell in head]
    return table_folded_if_long(columns, [[_parts(cell.strip()) for cell in row] for row in rows])
