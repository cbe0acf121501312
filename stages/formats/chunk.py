"""Some thousands of new rows: how many, which columns, and how they are put together."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.kind import kind_of
from stages.features.schema import Schema
from stages.formats.reading import Damage

CHUNK_ROWS = 32_768
# Of wide rows and of images fewer are taken, down to one.
CHUNK_VALUES = 1 << 21
# Adds rows to a file.
Write = Callable[[pl.DataFrame], None]


@dataclass(frozen=True)
class Chunk:
    """Rows of the file: `table` holds the model's columns, `rows` (rows,) their numbers from 0.

    `damaged` are those that stand among them and could not be read.
    """

    table: pl.DataFrame
    rows: npt.NDArray[np.int64]
    damaged: list[Damage] = field(default_factory=list)


def chunk_rows(schema: Schema) -> int:
    """The number of rows of a chunk, which follows from what one row holds."""
    num_values = sum(math.prod(feature.shape or [1]) for feature in schema.features)
    return max(1, min(CHUNK_ROWS, CHUNK_VALUES // num_values))


def needed_columns(schema: Schema) -> list[str]:
    """The key's column, if there is one, and those of the features."""
    return [*([] if schema.key is None else [schema.key]), *(f.name for f in schema.features)]


def take_columns(table: pl.DataFrame, schema: Schema, key: str) -> pl.DataFrame:
    """The needed columns of a table whose file says their types.

    Raises UserError where no value of a column can be what the model takes: a date is no number.
    """
    table = table[needed_columns(schema)]
    empty = table.head(0)
    for feature in schema.features:
        kind = kind_of(feature.kind)
        if kind.TYPE == "float64":
            kind.feed(feature, empty[feature.name], key)
    return table


def in_equal_parts(chunks: Iterator[Chunk], num_rows: int) -> Iterator[Chunk]:
    """The rows of `chunks`, damaged ones among them, `num_rows` at a time.

    What stands in a row, or is wrong with it, must not move others into another chunk: the last
    bits of a prediction may depend on what is computed together.
    """
    waiting: list[Chunk] = []
    count, start = 0, 0
    for chunk in chunks:
        waiting.append(chunk)
        count += len(chunk.rows) + len(chunk.damaged)
        if count >= num_rows:
            whole = _joined(waiting)
            while count >= num_rows:
                start, count = start + num_rows, count - num_rows
                part, whole = _cut(whole, start)
                yield part
            waiting = [whole]
    if count:
        yield _joined(waiting)


def _joined(chunks: list[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    damaged = [damage for chunk in chunks for damage in chunk.damaged]
    rows = np.concatenate([chunk.rows for chunk in chunks])
    return Chunk(pl.concat([chunk.table for chunk in chunks]), rows, damaged)


def _cut(chunk: Chunk, end: int) -> tuple[Chunk, Chunk]:
    """The rows before the number `end`, and the others."""
    place = int(np.searchsorted(chunk.rows, end))
    before = [damage for damage in chunk.damaged if damage.row < end]
    after = chunk.damaged[len(before) :]
    return (
        Chunk(chunk.table[:place], chunk.rows[:place], before),
        Chunk(chunk.table[place:], chunk.rows[place:], after),
    )
