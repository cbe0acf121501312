"""A table as the pandas frame that Great Expectations is given."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import polars as pl
import polars.selectors as cs

from stages.prepare.expectations.suite import is_nested

if TYPE_CHECKING:
    import pandas


def flatten(table: pl.DataFrame) -> pl.DataFrame:
    """`table` with types that pandas has.

    Arrays, records and bytes become a hash of their content: enough to tell what is missing
    and what stands twice, which is all that a suite may ask of them. Numbers of more than 64 bits
    (long ids, mostly) become texts.
    """
    flat = table.with_columns(
        cs.decimal().cast(pl.Float64), cs.by_dtype(pl.Int128, pl.UInt128).cast(pl.String)
    )
    for column in table.iter_columns():
        if is_nested(column.dtype):
            texts = column.hash().cast(pl.String)
            flat = flat.with_columns(texts.set(column.is_null(), None).alias(column.name))
    return flat


def to_pandas(table: pl.DataFrame, gaps: Collection[str] = ()) -> "pandas.DataFrame":
    """`table` as a pandas frame with every column and row in place.

    `gaps` names columns that have gaps in other parts of the table: their types allow for them
    here, too.
    """
    flat = flatten(table)
    frame = flat.to_pandas()
    for column in flat.iter_columns():
        if not (column.name in gaps or column.null_count()):
            continue
        # With gaps, pandas turns whole numbers into float64, and so two long ids into one; by way
        # of objects it does not.
        if column.dtype.is_integer():
            objects = column.to_pandas(use_pyarrow_extension_array=True).astype(object)
            frame[column.name] = objects.astype(str(column.dtype))
        elif column.dtype == pl.Boolean:
            frame[column.name] = frame[column.name].astype(object)
    return frame
