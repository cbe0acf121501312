"""The ties between rows, from the columns that `prepare.structure` and `prepare.split` name."""

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.errors import Problem, UserError, shorten
from stages.features.columns import as_category, as_numeric
from stages.features.schema import Array
from stages.prepare.params import PrepareParams
from stages.prepare.split import SPLITS, Structure

FORMATS = ("%Y-%m-%d", *(f"%Y-%m-%d{t}%H:%M{s}" for t in " T" for s in ("", ":%S", ":%S%.f")))
# Words for the parts of a data set, in small letters.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}


def find_structure(table: pl.DataFrame, params: PrepareParams) -> Structure:
    """Groups, times and parts of the rows. Raises UserError where a row has none."""
    tie, column = params.structure, params.split.column
    group = None if tie is None else tie.group
    time = None if tie is None else tie.time
    return Structure(
        groups=None if group is None else _find_groups(table[group]),
        times=None if time is None else _find_times(table[time]),
        parts=None if column is None else _find_parts(table[column]),
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


def _find_times(column: pl.Series) -> npt.NDArray[np.float64]:
    """The time of each row, (rows,): of any unit, since the order alone matters."""
    key = "prepare.structure.time"
    if column.dtype == pl.String:
        column = _read_times(column, key)
    if column.dtype.is_temporal():
        column = column.to_physical()
    values = as_numeric(column, key)
    _stop_at_gaps(column, values, "time", key)
    return values.to_numpy()


def _read_times(column: pl.Series, key: str) -> pl.Series:
    """Texts as numbers, or as times of one of FORMATS."""
    found = [column.cast(pl.Float64, strict=False)]
    found += [_as_times(column, form) for form in FORMATS]
    for values in found:
        if values.null_count() == column.null_count():
            return values
    strays = _as_times(column, FORMATS[0]).is_null() & column.is_not_null()
    row = int(strays.arg_true()[0])
    message = (
        f"the column '{column.name}' is no time in all rows, such as row {row}: "
        f"{shorten(repr(column[row]))}; write times as 2024-05-31 or 2024-05-31 18:30:00, or as "
        "numbers"
    )
    raise UserError(Problem(message, key=key, value=column.name))


def _as_times(column: pl.Series, form: str) -> pl.Series:
    return column.str.to_datetime(form, strict=False, time_unit="us")


def _find_parts(column: pl.Series) -> Array:
    """The split of each row by its name, (rows,) text."""
    key = "prepare.split.column"
    words = as_category(column)
    _stop_at_gaps(column, words, "split", key)
    parts = words.str.to_lowercase().replace_strict(PARTS, default=None, return_dtype=pl.String)
    if parts.null_count():
        others = words.filter(parts.is_null()).unique(maintain_order=True).head(3).to_list()
        shown = ", ".join(shorten(repr(word)) for word in others)
        message = f"the column '{column.name}' says no split in {parts.null_count()} rows: {shown}"
        raise UserError(Problem(message, key=key, value=column.name, allowed=SPLITS))
    if not (parts == "train").any():
        message = f"no row is of 'train' by the column '{column.name}'"
        raise UserError(Problem(message, key=key, value=column.name))
    return np.array(parts.to_list(), dtype=np.str_)


def _stop_at_gaps(column: pl.Series, values: pl.Series, what: str, key: str) -> None:
    if values.null_count():
        rows = values.is_null().arg_true().head(5).to_list()
        message = (
            f"the column '{column.name}' names no {what} in {values.null_count()} rows (the first: "
            f"{rows})"
        )
        raise UserError(Problem(message, key=key, value=column.name))
