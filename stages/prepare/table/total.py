"""A last row that sums up the others, as reports have it."""

import math

import polars as pl
from polars import selectors as cs

from stages.common.errors import Problem, UserError, shorten
from stages.prepare.table.table import Table

_TOTAL = r"^(?i:(?:grand |sub-?)?totals?|sum|gesamt|summe|insgesamt|totale|suma):?$"


def stop_at_total(table: Table, key: str) -> None:
    """Raise UserError where the last row sums up the others.

    It holds a word for that, which stands nowhere else in its column, and each number in it is the
    sum of those above.
    """
    if table.height < 3:
        return
    last = table.last_row()
    words = [
        column.name
        for column in last.select(pl.col(pl.String)).iter_columns()
        if column.str.contains(_TOTAL)[0] and _count(table, column.name, column[0]) == 1
    ]
    if not words:
        return
    sums = []
    for column in last.select(cs.numeric()).iter_columns():
        if column[0] is not None:
            total = float(sum(part.sum() for part in table.column_parts(column.name)))
            sums.append(math.isclose(column[0], total - column[0], rel_tol=1e-6))
    if sums and all(sums):
        shown = shorten(repr(last[words[0]][0]))
        message = (
            f"the last row ({table.height - 1}) is no row like the others: {shown} stands in "
            f"'{words[0]}', and its numbers are the sums of those above; remove it from the file"
        )
        raise UserError(Problem(message, key=key))


def _count(table: Table, name: str, value: str) -> int:
    return int(sum((part == value).sum() for part in table.column_parts(name)))
