"""Names and values in Markdown: each stays on its line, in its cell, and is text.

A name may hold anything: the end of a line, bars, backticks, tags, marks that turn the direction
of writing.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

MAX_LENGTH = 200
# What Markdown or HTML would take for more than its sign; an underscore does so beside a word.
_SPECIAL = re.compile(r"[\\`*\[\]<>&~$|]|(?<![^\W_])_|_(?![^\W_])")
# Marks that reverse or isolate the text behind them, and what ends a line elsewhere.
_TURNS = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: object) -> str:
    """`text` as it is, for a line or a cell of Markdown: nothing in it is markup."""
    return _SPECIAL.sub(lambda found: f"\\{found[0]}", one_line(text))


def code(text: object) -> str:
    """`text` as code; the bar is escaped, as a table wants it, since code has no entities."""
    line = one_line(text)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    # A blank keeps the fence apart; one on each side is not shown.
    pad = " " if line.startswith("`") or line.endswith("`") or not line.strip() else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def one_line(text: object) -> str:
    """`text` on one line of 200 characters at most, with what does not show as `\\u202e`."""
    line = " ".join(re.split(r"\r?\n", str(text)))
    line = _TURNS.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
    line = "".join(
        f"\\x{ord(char):02x}" if unicodedata.category(char) in ("Cc", "Cs") else char
        for char in line
    )
    return line if len(line) <= MAX_LENGTH else line[: MAX_LENGTH - 1] + "…"


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
