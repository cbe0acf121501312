"""The column of `--time`: what of its dates a model may learn from, and what it divides."""

from dataclasses import replace
from shlex import quote

import numpy as np
import polars as pl

from stages.common.counts import counted
from stages.common.errors import UserError
from stages.features.dates.columns import are_dates, as_seconds, find_format
from stages.features.times import find_cycles, name_format
from stages.prepare.params import Column as Settings
from stages.prepare.params import PrepareParams
from stages.prepare.rows.order import judge_order
from stages.prepare.rows.split import split_rows
from stages.prepare.rows.structure import find_structure
from stages.prepare.table.table import Table
from stages.tools.init.columns import Column, describe
from stages.tools.init.options import Setting

# Somewhat fewer rows than train has: these are the earliest.
EARLY = 0.6
WHY = "--time; later rows test earlier ones"
_TOO_LATE = (
    "; learned from is how late it is, too, and later rows are later than all that training has: "
    "calendar: true leaves that out"
)


def describe_time(column: pl.Series, said: Setting | None) -> Column:
    """The line of the column, with the calendar in its setting where it has one to learn from.

    `said` is its setting of the command line; one of a format alone leaves the calendar to find.
    """
    line = describe(column, "time", WHY, said)
    form = said.get("format") if isinstance(said, dict) and said.keys() <= {"format"} else None
    if said is not None and form is None:
        return replace(line, why=f"{WHY}{_TOO_LATE}") if _is_learned(said) else line
    if not (form or are_dates(column)):
        return line
    try:
        cycles = _find_early(column, form)
    except UserError:
        # Prepare stops at it, and says which lines decide.
        return line
    if not cycles:
        why = f"{WHY}; the earlier ones span no whole year, week or day to learn from"
        return replace(line, why=why)
    places = " and ".join(f"the {cycle}" for cycle in cycles)
    why = f"{WHY}; learned from are its places in {places}, not how late it is"
    told = {} if form is None else {"format": form}
    return replace(line, why=why, setting={"kind": "datetime", **told, "calendar": True})


def _is_learned(said: Setting) -> bool:
    """Check whether a setting makes the time itself a part of what is learned from."""
    settings = Settings.model_validate({"kind": said} if isinstance(said, str) else said)
    return settings.named_kind not in (None, "exclude") and not settings.calendar


def _find_early(column: pl.Series, form: str | None) -> list[str]:
    """The cycles that the earliest dates span."""
    form, zone = find_format(column, form)
    must = name_format(form, zone)
    seconds = as_seconds(column, form, must, "PATH", aware=zone is not None)
    known = np.sort(seconds[~np.isnan(seconds)])
    return list(find_cycles([known[: int(EARLY * len(known))]], form)[0])


def stop_at_few_groups(num_groups: int | None, params: PrepareParams) -> None:
    """Raise UserError where the rows' groups are fewer than the splits; None: no groups."""
    tie, split = params.structure, params.split
    num_splits = 1 + bool(split.validation) + bool(split.test)
    if tie is None or num_groups is None or num_groups >= num_splits or split.column is not None:
        return
    message = (
        f"the column '{tie.group}' has {counted(num_groups, 'group')}, and a group "
        f"stays in one of {num_splits} splits: name a column with more groups, or leave --group out"
    )
    raise UserError(message)


def judge_groups(table: Table, params: PrepareParams) -> list[str]:
    """A warning where test rows of groups are no later than train rows.

    Raises UserError where the groups end together, so that the time divides nothing.
    """
    tie = params.structure
    if tie is None or tie.group is None or tie.time is None:
        return []
    try:
        structure = find_structure(table, params)
        # Groups that are ranked by their times have no use for hashes.
        codes = split_rows(np.zeros(table.height, np.uint64), None, params.split, structure)
    except UserError:
        # Prepare stops at it, and says which lines decide.
        return []
    ways = (
        f"  later rows test earlier ones  --time {quote(tie.time)}, without --group\n"
        f"  some groups test others       --group {quote(tie.group)}, without --time"
    )
    return judge_order(table.column(tie.time), structure, codes, ways)
