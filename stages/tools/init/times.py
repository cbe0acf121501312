"""The column of `--time`: what of its dates a model may learn from."""

from dataclasses import replace

import numpy as np
import polars as pl

from stages.common.errors import UserError
from stages.features.dates.columns import are_dates, as_seconds, find_format
from stages.features.times import find_cycles, name_format
from stages.prepare.params import Column as Settings
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
    return list(find_cycles([known[: int(EARLY * len(known))]])[0])
