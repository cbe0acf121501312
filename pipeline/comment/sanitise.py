"""A comment from a report that nobody has to trust: a pull request's own code may have written it.

Whatever it holds, the comment pings nobody, links nowhere, loads nothing, runs no command of a bot,
hides nothing and leaves nothing open.
"""

import re
import unicodedata

# The hosts count characters; no count of a text is above that of its bytes.
MAX_COMMENT_BYTES = 65_536
NUM_MARKS_KEPT = 2
# Shown as nothing, and what stands on both sides of it is no longer one word of Markdown.
BREAK = "\N{ZERO WIDTH SPACE}"
OPEN = re.compile(r"<details><summary>[^<>]*</summary>|<details>")
CLOSE = "</details>"
TITLE = re.compile(r"\*\*[^*]*\*\*|#+ .*")
# Mentions, references to issues, entities, tags; an image or a link; what is linked as it stands.
SPECIAL = re.compile(
    r"[@!&<](?=\S)|#(?=[^\s#])|\](?=[(\[:])|:(?=//)|\bwww(?=\.)|\bGH(?=-)", re.IGNORECASE
)
FENCE = re.compile(r"`{3,}|~{3,}")
COMMAND = re.compile(r"^(\W*)/")


def make_safe(text: str) -> str:
    """`text` with only the Markdown that a report is made of: tables, headings, folded sections."""
    lines, num_open = [], 0
    for line in _plain(text).split("\n"):
        if OPEN.fullmatch(line):
            num_open += 1
            head, _, title = line.partition("<summary>")
            title = title.removesuffix("</summary>")
            lines.append(f"{head}<summary>{_defuse(title)}</summary>" if title else head)
        elif line.strip() != CLOSE:
            lines.append(_defuse(line))
        elif num_open:
            num_open -= 1
            lines.append(CLOSE)
    return "\n".join(lines).strip() + f"\n\n{CLOSE}" * num_open


def cut(text: str, limit_bytes: int) -> str:
    """The beginning of `text` that fits, to the end of a section, or of a table's row.

    Folded sections that are open there are closed.
    """
    if _size(text) <= limit_bytes:
        return text
    kept: list[str] = []
    room, num_open = limit_bytes, 0
    for block in text.split("\n\n"):
        opened = num_open + block.count("<details>") - block.count(CLOSE)
        # What closes the sections has to fit as well.
        cost = _size(block) + 2 + _size(f"\n\n{CLOSE}") * (opened - num_open)
        if cost > room:
            kept += _rows(block, room)
            break
        kept.append(block)
        room, num_open = room - cost, opened
    while kept and (TITLE.fullmatch(kept[-1]) or OPEN.fullmatch(kept[-1])):
        num_open -= 1 if OPEN.fullmatch(kept.pop()) else 0
    return "\n\n".join([*kept, *[CLOSE] * num_open])


def one_line(text: object, limit: int = 200) -> str:
    """`text` as a line for a log or for the inside of a sentence: no commands, nothing hidden."""
    line = " ".join(_plain(str(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _rows(block: str, room: int) -> list[str]:
    """The rows of a table that fit: with its head, and no row in part; nothing of another block."""
    if not block.startswith("| "):
        return []
    rows: list[str] = []
    for row in block.split("\n"):
        room -= _size(row) + 1
        if room < 2:
            break
        rows.append(row)
    return ["\n".join(rows)] if len(rows) > 2 else []


def _size(text: str) -> int:
    return len(text.encode())


def _plain(text: str) -> str:
    """Without what does not show: controls, direction and other formats, marks in heaps."""
    kept: list[str] = []
    num_marks = 0
    for char in text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " "):
        kind = unicodedata.category(char)
        num_marks = num_marks + 1 if kind in ("Mn", "Me") else 0
        hidden = kind[0] == "C" or kind in ("Zl", "Zp") or num_marks > NUM_MARKS_KEPT
        if char == "\n" or not hidden:
            kept.append(char)
    return "".join(kept)


def _defuse(line: str) -> str:
    line = FENCE.sub("'''", line)
    line = SPECIAL.sub(lambda found: found[0] + BREAK, line)
    # A formula may be of any size and colour.
    line = line.replace("$", "\N{FULLWIDTH DOLLAR SIGN}")
    return COMMAND.sub(lambda found: f"{found[1]}{BREAK}/", line)
