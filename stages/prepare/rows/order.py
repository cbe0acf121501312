"""The order of the splits where groups are divided by their times.

A group is as late as the last of its rows, so its other rows may lie among those of training. And
where the groups end together, no one is later than the others: the time divides nothing.
"""

import numpy as np
import polars as pl

from stages.common.errors import Problem, UserError, shorten
from stages.prepare.rows.split import SPLITS, Codes, Structure


def judge_order(column: pl.Series, structure: Structure, codes: Codes, ways: str) -> list[str]:
    """A line where test rows are no later than train rows; of a split by its own column nothing.

    `column` (rows,) has the times as they came, `codes` (rows,) the places in SPLITS; `ways` are
    the lines to choose from. Raises UserError where no group of the test rows ends later than all
    of the train rows.
    """
    groups, times = structure.groups, structure.times
    if groups is None or times is None or structure.parts is not None:
        return []
    train, test = (np.flatnonzero(codes == SPLITS.index(name)) for name in ("train", "test"))
    last, first = train[times[train].argmax()], test[times[test].argmin()]
    early = int((times[test] <= times[last]).sum())
    if not early:
        return []
    shown_last, shown_first = (_show(column, int(row)) for row in (last, first))
    if times[test].max() <= times[last]:
        num_tied = _count_tied(structure, float(times[last]))
        message = (
            f"{num_tied} groups end together, at {shown_last}, the latest time of all: whole "
            f"groups can't be divided into earlier and later ones by '{column.name}' (test rows "
            f"would begin at {shown_first}, and no group of theirs would end later than those of "
            f"training); say what divides the rows\n{ways}"
        )
        raise UserError(Problem(message, key="prepare.structure"))
    return [
        f"{early:,} of {len(test):,} test rows are no later than the latest train row: training "
        f"ends at {shown_last}, and the earliest test row is of {shown_first}, since a group is as "
        f"late as the last of its rows; to have it otherwise\n{ways}"
    ]


def _count_tied(structure: Structure, latest: float) -> int:
    """The number of groups whose last row is of that time."""
    assert structure.groups is not None
    assert structure.times is not None
    return len(np.unique(structure.groups[structure.times == latest]))


def _show(column: pl.Series, row: int) -> str:
    return shorten(str(column[row]).removesuffix(" 00:00:00"))
