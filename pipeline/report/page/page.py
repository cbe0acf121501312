"""A page of HTML in one file: it loads nothing and has no script; all text in it is escaped."""

from collections.abc import Iterable, Sequence
from html import escape as escape_signs
from pathlib import Path

from pipeline.report.page.markup import Cell, to_html, to_text
from stages.evaluate.outputs.markdown import one_line

# The style that all pages share stands where a stage can read it, and below it that of this room.
STYLES = (
    Path(__file__).parents[3] / "stages/prepare/expectations/page.css",
    Path(__file__).with_name("style.css"),
)
# Of more characters a cell may break into lines.
MAX_SHORT = 40
# Of more characters in a row a table does not fit a phone; a column's padding takes as many as two.
MAX_ACROSS = 44
PADDING = 2
# Of more rows a table is folded.
NUM_ROWS_OPEN = 12
# What is shown in a colour.
WORDS = ("better", "worse", "noise", "pass", "fail", "inconclusive", "drift")


def make_page(title: str, body: Iterable[str]) -> str:
    """The page of the parts of `body`, which are HTML; light or dark, for any width."""
    style = "".join(file.read_text(encoding="utf-8") for file in STYLES)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n"
        f"<style>\n{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def escape(text: object) -> str:
    """A name or a value as text of the page, on one line."""
    return escape_signs(one_line(text))


def paragraph(text: str, kind: str = "") -> str:
    """A sentence of any length, in which a name may stand; `kind` is a class of the style."""
    words = " ".join(escape(word) for word in text.split(" "))
    return f'<p class="{kind}">{words}</p>' if kind else f"<p>{words}</p>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table, which scrolls by itself where it is wider than the page.

    On a phone a wide one shows each row as a block, whose lines begin with the column's name.
    """
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(_row(columns, row) for row in rows)
    kind = "stacked" if _width(columns, rows) > MAX_ACROSS else "narrow"
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(columns: Sequence[str], row: Sequence[Cell]) -> str:
    return f"<tr>{''.join(map(_cell, columns, row))}</tr>"


def _width(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> int:
    """The characters that the longest cells of all columns take, side by side."""
    return sum(
        PADDING + max([len(name), *(len(to_text(row[place])) for row in rows)])
        for place, name in enumerate(columns)
    )


def fold(summary: str, content: str, *, is_open: bool = False) -> str:
    """`content`, which is HTML, under a line that unfolds it."""
    attribute = " open" if is_open else ""
    return f"<details{attribute}><summary>{escape(summary)}</summary>{content}</details>"


def table_folded_if_long(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """The table; of more than twelve rows, under a line with their number."""
    shown = table(columns, rows)
    return fold(f"{len(rows)} rows", shown) if len(rows) > NUM_ROWS_OPEN else shown


def figure(caption: str, content: str) -> str:
    """A picture, which is HTML, under its caption."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{content}</figure>"


def _cell(column: str, cell: Cell) -> str:
    text = to_text(cell)
    first = text.split(" ")[0].rstrip(":,")
    kind = first if first in WORDS else "long" if len(text) > MAX_SHORT else ""
    kind = "interval" if " to " in text and (text[:1] in "+-" or text[:1].isdigit()) else kind
    kind = "number" if _is_number(text) else kind
    # One element, beside which the name of the column stands in a block.
    return f'<td class="{kind}" data-column="{escape(column)}"><span>{to_html(cell)}</span></td>'


def _is_number(text: str) -> bool:
    digits = text.lstrip("+-× ").replace(".", "").replace(",", "").replace("e-", "")
    return digits.isdigit()
