"""A confusion matrix as a table of numbers over shades: actual down, predicted across."""

from collections import Counter
from collections.abc import Iterable

from pipeline.report.page.page import escape

MAX_CLASSES = 30
# Where the names take more characters side by side, columns have numbers.
MAX_ACROSS = 60


def draw_confusion(pairs: Iterable[tuple[str, str]]) -> str:
    """The table of (actual, predicted) pairs, one a row.

    A cell is shaded by its share of the actual class. Long names stand at the rows alone, with the
    numbers of their columns. Empty without rows, and for more than 30
    classes, which no page shows in one table.
    """
    counts = Counter(pairs)
    names = sorted({name for pair in counts for name in pair}, key=lambda n: (len(n), n))
    if not names or len(names) > MAX_CLASSES:
        return ""
    are_long = sum(len(name) + 2 for name in names) > MAX_ACROSS
    heads = [str(place) for place in range(1, len(names) + 1)] if are_long else names
    titles = [f"{head}: {name}" for head, name in zip(heads, names, strict=True)]
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(
        _row(title, actual, names, counts)
        for title, actual in zip(titles if are_long else names, names, strict=True)
    )
    return (
        f'<div class="scroll"><table class="matrix{" long" if are_long else ""}">'
        f"<thead><tr><th></th>{head}</tr></thead>{body}</table></div>"
    )


def _row(title: str, actual: str, names: list[str], counts: Counter[tuple[str, str]]) -> str:
    whole = sum(counts[actual, name] for name in names)
    cells = []
    for name in names:
        number = counts[actual, name]
        shade = f' style="--share:{number / whole:.2f}"' if number else ""
        right = ' class="right"' if name == actual else ""
        cells.append(f"<td{right}{shade}>{number or ''}</td>")
    return f"<tr><th>{escape(title)}</th>{''.join(cells)}</tr>"
