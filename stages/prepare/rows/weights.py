"""The weight of each row, from the column that `prepare.weight` names."""

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.counts import either
from stages.common.errors import Problem, UserError
from stages.features.columns import as_numeric
from stages.features.numbers import Rows
from stages.prepare.rows.split import SPLITS, Codes

Weights = npt.NDArray[np.float64]
KEY = "prepare.weight"
MAX_ROWS_SHOWN = 5


def find_weights(column: pl.Series, rows: Rows) -> Weights:
    """The weights (rows,) in float64 from a column.

    `rows` (rows,) are the numbers of its rows in the source. Raises UserError for an invalid
    weight.
    """
    name = column.name
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        message = f"the column '{name}' is of type {column.dtype}, and a weight is a number"
        raise UserError(Problem(message, KEY, name))
    weights = as_numeric(column, KEY)
    faults = {
        "no weight that is a finite number": weights.is_null(),
        "a negative weight": (weights < 0).fill_null(value=False),
    }
    problems = []
    for what, is_wrong in faults.items():
        if is_wrong.any():
            shown = ", ".join(map(str, rows[is_wrong.arg_true()[:MAX_ROWS_SHOWN].to_numpy()]))
            more = ", …" if is_wrong.sum() > MAX_ROWS_SHOWN else ""
            num_wrong = int(is_wrong.sum())
            has, the = either(num_wrong, "has", "have"), either(num_wrong, "the row", "the rows")
            message = f"{num_wrong} of {column.len()} rows {has} {what} in '{name}': {the} "
            problems.append(Problem(f"{message}{shown}{more}", KEY, name))
    if problems:
        raise UserError(*problems)
    found = weights.to_numpy()
    with np.errstate(over="ignore"):
        total = found.sum()
    if not np.isfinite(total):
        message = f"the weights in '{name}' are too large to add up (the largest: {found.max():g})"
        raise UserError(Problem(message, KEY, name))
    if not found.any():
        raise UserError(Problem(f"all rows weigh 0 by '{name}': nothing would count", KEY, name))
    return found


def check_splits(weights: Weights, codes: Codes) -> None:
    """Raise UserError where nothing of a split would count; `codes` (rows,) is that of each row."""
    for code, split in enumerate(SPLITS):
        own = weights[codes == code]
        if not own.any():
            message = (
                f"all {len(own)} rows of the split '{split}' weigh 0: nothing there would count"
            )
            raise UserError(Problem(message, KEY))


def describe_weights(name: str, weights: Weights) -> str:
    """A line on their range, and on how many equal ones would tell as much.

    That is the effective size of Kish (Survey Sampling, 1965).
    """
    shares = weights / weights.max()
    effective = shares.sum() ** 2 / (shares**2).sum()
    none = int((weights == 0).sum())
    said = f", {none} of 0, which do not count" if none else ""
    return (
        f"weights in '{name}': {weights.min():.4g} to {weights.max():.4g}{said}; the "
        f"{len(weights)} rows tell as much as {effective:.0f} of equal weight"
    )
