"""The ties between rows, from the columns that `prepare.structure` and `prepare.split` name."""

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.counts import counted
from stages.common.errors import Problem, UserError, shorten
from stages.features.columns import as_category, as_numeric
from stages.features.dates.columns import as_seconds, find_format
from stages.features.schema import Array
from stages.features.times import name_format
from stages.prepare.columns.parts import PARTS
from stages.prepare.params import PrepareParams
from stages.prepare.rows.split import SPLITS, Structure
from stages.prepare.table.table import Table


def find_structure(table: Table, params: PrepareParams) -> Structure:
    """Groups, times and parts of the rows. Raises UserError where a row has none."""
    tie, column = params.structure, params.split.column
    group = None if tie is None else tie.group
    time = None if tie is None else tie.time
    return Structure(
        groups=None if group is None else _find_groups(table.column(group)),
        times=None if time is None else _find_times(table.column(time), params.column(time).format),
        parts=None if column is None else _find_parts(table.column(column)),
    )


def _find_groups(column: pl.Series) -> Array:
    """The names of the groups, (rows,) text."""
    key = "prepare.structure.group"
    if column.dtype.is_nested():
        message = f"the column '{column.name}' holds lists or records, which name no group"
        raise UserError(Problem(message, key=key, value=column.name))
    names = as_category(column)
    _stop_at_gaps(column, names, "group", key)
    return np.array(names.to_list(), dtype=np.str_)


def _find_times(column: pl.Series, form: str | None) -> npt.NDArray[np.float64]:
    """The time of each row, (rows,): of any unit, since the order alone matters.

    Texts are numbers, or dates of one format; `form` is the one that `prepare.columns` tells.
    """
    key = "prepare.structure.time"
    numbers = column.cast(pl.Float64, strict=False) if column.dtype == pl.String else None
    if numbers is not None and numbers.null_count() == column.null_count():
        column = numbers
    if column.dtype == pl.String or isinstance(column.dtype, pl.Date | pl.Datetime):
        form, zone = find_format(column, form)
        must = name_format(form, zone)
        seconds = as_seconds(column, form, must, key, aware=zone is not None)
        values = pl.Series(column.name, seconds).fill_nan(None)
    else:
        values = as_numeric(column.to_physical(), key)
    _stop_at_gaps(column, values, "time", key)
    return values.to_numpy()


def _find_parts(column: pl.Series) -> Array:
    """The split of each row by its name, (rows,) text."""
    key = "prepare.split.column"
    words = as_category(column)
    _stop_at_gaps(column, words, "split", key)
    parts = words.str.to_lowercase().replace_strict(PARTS, default=None, return_dtype=pl.String)
    if parts.null_count():
        others = words.filter(parts.is_null()).unique(maintain_order=True).head(3).to_list()
        shown = ", ".join(shorten(repr(word)) for word in others)
        rows = counted(parts.null_count(), "row")
        message = f"the column '{column.name}' says no split in {rows}: {shown}"
        raise UserError(Problem(message, key=key, value=column.name, allowed=SPLITS))
    if not (parts == "train").any():
        message = f"no row is of 'train' by the column '{column.name}'"
        raise UserError(Problem(message, key=key, value=column.name))
    return np.array(parts.to_list(), dtype=np.str_)


def _stop_at_gaps(column: pl.Series, values: pl.Series, what: str, key: str) -> None:
    if values.null_count():
        rows = values.is_null().arg_true().head(5).to_list()
        message = (
            f"the column '{column.name}' names no {what} in "
            f"{counted(values.null_count(), 'row')} (the first: {rows})"
        )
        raise UserError(Problem(message, key=key, value=column.name))
