"""A table as text: its columns as wide as what stands in them, a line below the head."""

from collections.abc import Sequence


def lay_out(rows: Sequence[Sequence[str]], num_right: int = 0) -> str:
    """Lines of `rows`, the first of them the head; in the last `num_right` columns are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    num_left = len(widths) - num_right
    lines = [
        "  ".join(
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines) + "\n"
