"""Parquet: a table with types; whole, a chunk at a time, and written."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from stages.features.encode import check_columns
from stages.features.schema import Schema
from stages.formats.chunk import Chunk, Write, chunk_rows, needed_columns, take_columns
from stages.formats.part import PART_ROWS, Part
from stages.formats.reading import Damage, Noticed
from stages.formats.text.plain_values import plain

READ_BYTES = 1 << 20
# The column of class names in predictions: few words, each in many rows.
REPEATED = "prediction"


def read(path: Path, _key: str, _noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The whole table. No row alone is damaged: the file can be read, or not."""
    return plain(pl.read_parquet(path)), []


def parts(path: Path, _key: str, _noticed: Noticed, _as_text: frozenset[str]) -> Iterator[Part]:
    """The rows as many at a time as a part has, with the types that the file gives them."""
    yield Part(plain(pl.DataFrame(schema=pl.read_parquet_schema(path))))
    try:
        with _open(path) as file:
            for batch in file.iter_batches(PART_ROWS):
                yield Part(plain(_to_polars(batch)))
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


def chunks(path: Path, schema: Schema, key: str, _noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema`, with the types that the file gives them."""
    try:
        for chunk in _read(path, schema, key):
            yield Chunk(plain(chunk.table), chunk.rows)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


def _read(path: Path, schema: Schema, key: str) -> Iterator[Chunk]:
    names = needed_columns(schema)
    with _open(path) as file:
        check_columns(pl.DataFrame(schema=dict.fromkeys(file.schema_arrow.names)), schema, key)
        start = 0
        for batch in file.iter_batches(chunk_rows(schema), columns=names, use_threads=False):
            table = take_columns(_to_polars(batch), schema, key)
            yield Chunk(table, np.arange(start, start + table.height))
            start += table.height


def _open(path: Path) -> parquet.ParquetFile:
    # Else pyarrow keeps what it has read, to the end of the file.
    return parquet.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES)


def _to_polars(batch: pa.RecordBatch) -> pl.DataFrame:
    table = pl.DataFrame(pl.from_arrow(batch))
    # Polars has given a column without a name one of its own.
    table.columns = batch.schema.names
    return table


@contextmanager
def open_writer(path: Path, metadata: Mapping[str, str]) -> Iterator[Write]:
    """A function that adds rows to a new file whose metadata are `metadata` alone."""
    with ExitStack() as stack:
        writers: list[parquet.ParquetWriter] = []

        def write(frame: pl.DataFrame) -> None:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            table = table.replace_schema_metadata(dict(metadata))
            if not writers:
                writer = parquet.ParquetWriter(path, table.schema, **_encodings(frame.schema))
                writers.append(stack.enter_context(writer))
            writers[0].write_table(table)

        yield write


def _encodings(schema: pl.Schema) -> dict[str, Any]:
    """The encoding of each column, in a third of the time and half of the bytes of the default.

    A dictionary pays for the names of classes alone; the bytes of floats are stored one place
    after the other, and whole numbers as their differences.
    """
    floats = [name for name, dtype in schema.items() if dtype.is_float()]
    numbers = [name for name, dtype in schema.items() if dtype.is_integer()]
    return {
        "compression": "zstd",
        "use_dictionary": [REPEATED] if schema.get(REPEATED) == pl.String else [],
        "use_byte_stream_split": floats,
        "column_encoding": dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
    }
