"""Arrow and Feather: a table with types, a file or a stream; whole, a chunk at a time, written."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import ipc

from stages.features.encode import check_columns
from stages.features.schema import Schema
from stages.formats.chunk import Chunk, Write, chunk_rows, in_equal_parts, take_columns
from stages.formats.part import PART_ROWS, Part
from stages.formats.reading import Damage, Noticed
from stages.formats.text.plain_values import plain

MAGIC, OLD_MAGIC = b"ARROW1", b"FEA1"


def read(path: Path, _key: str, _noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The whole table. No row alone is damaged: the file can be read, or not."""
    tables = [plain(_to_polars(batch)) for batch in _batches(path)]
    return pl.concat(tables) if tables else read_head(path), []


def read_head(path: Path) -> pl.DataFrame:
    """The columns of the file with their types, without a row."""
    with path.open("rb") as file:
        schema = _open(file).schema
    return _to_polars(pa.RecordBatch.from_pylist([], schema=schema))


def parts(path: Path, _key: str, _noticed: Noticed, _as_text: frozenset[str]) -> Iterator[Part]:
    """The rows as they are divided in the file, with the types that it gives them."""
    yield Part(plain(read_head(path)))
    for batch in _batches(path):
        for place in range(0, batch.num_rows, PART_ROWS):
            yield Part(plain(_to_polars(batch.slice(place, PART_ROWS))))


def chunks(path: Path, schema: Schema, key: str, _noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema`, with the types that the file gives them."""
    yield from in_equal_parts(_read(path, schema, key), chunk_rows(schema))


def _read(path: Path, schema: Schema, key: str) -> Iterator[Chunk]:
    check_columns(read_head(path), schema, key)
    size, start = chunk_rows(schema), 0
    for batch in _batches(path):
        for place in range(0, batch.num_rows, size):
            table = take_columns(plain(_to_polars(batch.slice(place, size))), schema, key)
            yield Chunk(table, np.arange(start, start + table.height))
            start += table.height


def _to_polars(batch: pa.RecordBatch) -> pl.DataFrame:
    table = pl.DataFrame(pl.from_arrow(batch))
    # Polars has given a column without a name one of its own.
    table.columns = batch.schema.names
    return table


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        reader = _open(file)
        try:
            if isinstance(reader, ipc.RecordBatchStreamReader):
                yield from reader
            else:
                for number in range(reader.num_record_batches):
                    yield reader.get_batch(number)
        except pa.ArrowException as error:
            raise ValueError(str(error)) from None


def _open(file: object) -> ipc.RecordBatchFileReader | ipc.RecordBatchStreamReader:
    start = file.read(len(MAGIC))  # type: ignore[attr-defined]
    file.seek(0)  # type: ignore[attr-defined]
    if start.startswith(OLD_MAGIC):
        raise ValueError("it is Feather of version 1: write version 2")
    try:
        return ipc.open_file(file) if start == MAGIC else ipc.open_stream(file)
    except pa.ArrowException as error:
        raise ValueError(f"it is no Arrow file: {error}") from None


@contextmanager
def open_writer(path: Path, metadata: Mapping[str, str]) -> Iterator[Write]:
    """A function that adds rows to a new file whose metadata are `metadata` alone."""
    with ExitStack() as stack:
        writers: list[ipc.RecordBatchFileWriter] = []

        def write(frame: pl.DataFrame) -> None:
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
            table = table.replace_schema_metadata(dict(metadata))
            if not writers:
                options = ipc.IpcWriteOptions(compression="zstd")
                writer = ipc.new_file(str(path), table.schema, options=options)
                writers.append(stack.enter_context(writer))
            writers[0].write_table(table)

        yield write
