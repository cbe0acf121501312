"""Rows to arrays and back: the same function for training and for new rows.

    arrays = encode(table, schema, statistics, "infer.input")

Arrays by kind, in the order of `KINDS`; the file of a kind in `stages/features/kinds` says what is
in its array.
"""

import numpy as np
import polars as pl

from stages.common.counts import counted
from stages.common.errors import Problem, UserError, did_you_mean
from stages.features.kind import kind_of
from stages.features.schema import KINDS, Array, Schema, Statistics


def check_columns(table: pl.DataFrame, schema: Schema, key: str) -> None:
    """Stop unless `table` has every column that the schema needs, the target apart.

    Raises UserError with all that are missing; `key` is the parameter that names the file.
    """
    needed = [feature.name for feature in schema.features]
    needed += [schema.key] if schema.key is not None else []
    problems = []
    there = set(table.columns)
    for name in needed:
        if name not in there:
            problems.append(
                Problem(
                    f"the column '{name}', which the model was trained on, is not in the file",
                    key=key,
                    allowed=tuple(table.columns),
                    suggestion=did_you_mean(name, table.columns),
                )
            )
    if problems:
        raise UserError(*problems)


def encode(
    table: pl.DataFrame, schema: Schema, statistics: Statistics, key: str
) -> dict[str, Array]:
    """The features of `table` as arrays by kind.

    Raises UserError where a column holds what the schema's kind can't be made of.
    """
    return {
        kind: kind_of(kind).encode(features, table, statistics, key)
        for kind in KINDS
        if (features := schema.of_kind(kind))
    }


def row_keys(table: pl.DataFrame, schema: Schema, key: str) -> Array:
    """The names of the rows: the key column (int64 or text), or the row's number from 0.

    Whole numbers that int64 does not hold, hashes mostly, are kept digit by digit as text.
    Raises UserError when a key is missing or stands twice.
    """
    if schema.key is None:
        return np.arange(table.height, dtype=np.int64)
    column = table[schema.key]
    if column.null_count():
        rows = counted(column.null_count(), "row")
        message = f"the key column '{schema.key}' is empty in {rows}"
        raise UserError(Problem(message, key=key))
    if column.n_unique() < column.len():
        twice = column.filter(column.is_duplicated()).unique(maintain_order=True).head(5)
        examples = ", ".join(str(value) for value in twice)
        message = f"the key column '{schema.key}' names more than one row with: {examples}"
        raise UserError(Problem(message, key=key))
    if column.dtype.is_integer():
        narrow = column.cast(pl.Int64, strict=False)
        if narrow.null_count() == 0:
            return narrow.to_numpy()
    return np.array(column.cast(pl.String).to_list(), dtype=np.str_)
