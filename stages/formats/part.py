"""Some ten thousand rows of a table, each column of the type that its values there have."""

from dataclasses import dataclass, field

import polars as pl

from stages.formats.reading import Damage

# So much of a file's text is a part, or so many rows of a file with types.
PART_BYTES = 16 << 20
PART_ROWS = 1 << 17
_WHOLE = (pl.Int64, pl.Int128)


@dataclass(frozen=True)
class Part:
    """Rows that follow each other; `damaged` are those among them that can't be read."""

    table: pl.DataFrame
    damaged: list[Damage] = field(default_factory=list)


def join_types(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """The type of a column of which parts are of two; None where only texts hold the values.

    Null is that of a part without a value.
    """
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    if one in _WHOLE and other in _WHOLE:
        return pl.Int128()
    if one in (*_WHOLE, pl.Float64) and other in (*_WHOLE, pl.Float64):
        return pl.Float64()
    return None
