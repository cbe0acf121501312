"""A confusion matrix as a table of numbers over shades: actual down, predicted across."""

from collections import Counter
from collections.abc import Iterable

from pipeline.report.page.page import escape

MAX_CLASSES = 30


def draw_confusion(pairs: Iterable[tuple[str, str]]) -> str:
    """The table of (actual, predicted) pairs, one a row.

    A cell is shaded by its share of the actual class. Empty without rows, and for more than 30
    classes, which no page shows in one table.
    """
    counts = Counter(pairs)
    names = sorted({name for pair in counts for name in pair}, key=lambda n: (len(n), n))
    if not names or len(names) > MAX_CLASSES:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(_row(actual, names, counts) for actual in names)
    return (
        '<div class="scroll"><table class="matrix">'
        f"<thead><tr><th></th>{head}</tr></thead>{body}</table></div>"
    )


def _row(actual: str, names: list[str], counts: Counter[tuple[str, str]]) -> str:
    whole = sum(counts[actual, name] for name in names)
    cells = []
    for name in names:
        number = counts[actual, name]
        shade = f' style="--share:{number / whole:.2f}"' if number else ""
        right = ' class="right"' if name == actual else ""
        cells.append(f"<td{right}{shade}>{number or ''}</td>")
    return f"<tr><th>{escape(actual)}</th>{''.join(cells)}</tr>"
