"""The content of a cell of the report, apart from how a page writes it: Markdown or HTML."""

from collections.abc import Iterable
from html import escape

from stages.evaluate.outputs.markdown import code, one_line, plain


class Code(str):
    """A name of a column, a class, a key or a file: shown as code."""

    __slots__ = ()


# Of a cell in Markdown, after which no part of it begins.
MAX_LENGTH = 300
# Several are shown one after the other.
Cell = str | tuple[str, ...]


def joined(parts: Iterable[str]) -> Cell:
    """All of `parts` with commas in between."""
    found: list[str] = []
    for part in parts:
        found += [", ", part] if found else [part]
    return tuple(found)


def to_markdown(cell: Cell) -> str:
    """A cell as Markdown in which no name is markup; of a very long one, the beginning."""
    written: list[str] = []
    length = 0
    for part in _parts(cell):
        if length > MAX_LENGTH:
            return "".join(written) + "…"
        written.append(code(part) if isinstance(part, Code) else plain(part))
        length += len(written[-1])
    return "".join(written)


def to_html(cell: Cell) -> str:
    """A cell as HTML in which no name is markup."""
    parts = ((escape(one_line(part)), isinstance(part, Code)) for part in _parts(cell))
    return "".join(f"<code>{text}</code>" if is_code else text for text, is_code in parts)


def to_text(cell: Cell) -> str:
    """A cell without markup."""
    return "".join(_parts(cell))


def _parts(cell: Cell) -> tuple[str, ...]:
    return (cell,) if isinstance(cell, str) else cell
