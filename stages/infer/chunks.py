"""New rows, some thousands at a time: from CSV, TSV, Parquet, JSON lines, a folder of images.

A file of any length takes the memory of one chunk. What is no row at all, such as a line with a
field too many, is handed on as damaged and does not stop the others.
"""

import csv as std_csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pyarrow import csv, parquet

from stages.common.encode import check_columns
from stages.common.errors import Problem, UserError
from stages.common.images import PATH, ImageError, Pixels, find_files, read_image
from stages.common.schema import Feature, Schema
from stages.common.tablefile import SUFFIXES
from stages.common.tables import check_file, check_twins
from stages.infer.csvfile import read_batches
from stages.infer.texts import read_texts

CHUNK_ROWS = 32_768
# Of wide rows and of images fewer are taken, down to one.
CHUNK_VALUES = 1 << 21
READ_BYTES = 1 << 20
CANNOT_READ = (pa.ArrowException, pl.exceptions.PolarsError, std_csv.Error)


@dataclass(frozen=True)
class Damage:
    """A row that is not predicted: its number in the file from 0, its key, where, and why."""

    row: int
    reason: str
    column: str = ""
    key: object = None


@dataclass(frozen=True)
class Chunk:
    """Rows of the file: `table` holds the model's columns, `rows` (rows,) their numbers from 0.

    `damaged` are those that stand among them and could not be read.
    """

    table: pl.DataFrame
    rows: npt.NDArray[np.int64]
    damaged: list[Damage] = field(default_factory=list)


def read_chunks(path: Path, schema: Schema, key: str) -> Iterator[Chunk]:
    """The columns of `schema` in the file, in its order; `key` is the parameter that names it.

    Raises UserError when the file can't be read, has no rows, or lacks a column.
    """
    if not path.is_dir():
        check_file(path, key)
    suffix = path.suffix.lower()
    if path.is_dir():
        chunks = _of_folder(path, schema, key)
    elif suffix == ".parquet":
        chunks = _of_parquet(path, schema, key)
    elif suffix in (".jsonl", ".ndjson"):
        chunks = _of_json_lines(path, schema, key)
    else:
        chunks = _of_csv(path, schema, key, "\t" if suffix == ".tsv" else ",")
    num_rows = 0
    try:
        for chunk in chunks:
            num_rows += chunk.table.height + len(chunk.damaged)
            yield chunk
    except (*CANNOT_READ, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).split("\n")[0][:200]
        raise UserError(Problem(f"cannot read {path}: {reason}", key, str(path))) from None
    if num_rows == 0:
        raise UserError(Problem(f"{path} has no rows", key, str(path)))


def chunk_rows(schema: Schema) -> int:
    """How many rows make a chunk: it follows from what one row holds."""
    num_values = sum(math.prod(feature.shape or [1]) for feature in schema.features)
    return max(1, min(CHUNK_ROWS, CHUNK_VALUES // num_values))


def needed_columns(schema: Schema) -> list[str]:
    """The key's column, if there is one, and those of the features."""
    return [*([] if schema.key is None else [schema.key]), *(f.name for f in schema.features)]


def _of_folder(folder: Path, schema: Schema, key: str) -> Iterator[Chunk]:
    """The images of a folder, each named by its path there, as the schema's one column."""
    if [feature.kind for feature in schema.features] != ["image"]:
        message = f"{folder} is a folder, and this model takes more than images: name one file"
        raise UserError(Problem(message, key, str(folder), allowed=SUFFIXES))
    (feature,) = schema.features
    num_rows, names = chunk_rows(schema), find_files(folder, key)
    for start in range(0, len(names), num_rows):
        rows: list[int] = []
        images: list[Pixels] = []
        damaged: list[Damage] = []
        for row, name in enumerate(names[start : start + num_rows], start):
            try:
                images.append(_read_as(folder / name, feature))
                rows.append(row)
            except ImageError as error:
                damaged.append(Damage(row, str(error), feature.name, name))
        paths = pl.Series(schema.key or PATH, [names[row] for row in rows], pl.String)
        column = pl.Series(feature.name, np.stack(images) if images else [])
        yield Chunk(pl.DataFrame([paths, column]), np.array(rows, np.int64), damaged)


def _read_as(path: Path, feature: Feature) -> Pixels:
    """The pixels of a file as the rows of `feature` hold them. Raises ImageError."""
    channels, height, width = feature.shape or []
    pixels = read_image(path, channels, (height, width))
    if feature.layout == "HWC":
        return pixels.reshape(height, width, channels)
    if feature.layout == "CHW":
        return pixels.reshape(height, width, channels).transpose(2, 0, 1)
    return pixels


def _of_parquet(path: Path, schema: Schema, key: str) -> Iterator[Chunk]:
    names = needed_columns(schema)
    # Else pyarrow keeps what it has read, to the end of the file.
    with parquet.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES) as file:
        check_columns(pl.DataFrame(schema=dict.fromkeys(file.schema_arrow.names)), schema, key)
        start = 0
        for batch in file.iter_batches(chunk_rows(schema), columns=names, use_threads=False):
            table = pl.DataFrame(pl.from_arrow(batch))
            # Polars has given a column without a name one of its own.
            table.columns = batch.schema.names
            table = table.select(names)
            yield Chunk(table, np.arange(start, start + table.height))
            start += table.height


def _of_csv(path: Path, schema: Schema, key: str, separator: str) -> Iterator[Chunk]:
    header = check_twins(path, separator)
    check_columns(pl.DataFrame(schema=[name.strip() for name in header]), schema, key)
    wanted = [name for name in header if name.strip() in needed_columns(schema)]
    damaged: list[Damage] = []

    def set_aside(line: csv.InvalidRow) -> str:
        # Its number counts from 1, the header included.
        fields = "field" if line.actual_columns == 1 else "fields"
        reason = f"it has {line.actual_columns} {fields}, and the header {line.expected_columns}"
        damaged.append(Damage(line.number - 2, reason))
        return "skip"

    start = 0
    for batch in read_batches(path, separator, wanted, set_aside):
        whole = pl.DataFrame(pl.from_arrow(batch)).rename(lambda name: name.strip())
        for table in whole.iter_slices(chunk_rows(schema)):
            rows, here = _numbered(start, table.height, damaged)
            start += table.height + len(here)
            yield Chunk(read_texts(table, schema), rows, here)
    if damaged:
        yield Chunk(pl.DataFrame(schema=needed_columns(schema)), np.arange(0), damaged)


def _numbered(
    start: int, height: int, damaged: list[Damage]
) -> tuple[npt.NDArray[np.int64], list[Damage]]:
    """The numbers of the next `height` whole rows; takes the damaged before their end out."""
    rows = np.arange(start, start + height)
    here: list[Damage] = []
    while damaged and (height == 0 or damaged[0].row <= rows[-1]):
        here.append(damaged.pop(0))
        rows += rows >= here[-1].row
    return rows, here


def _of_json_lines(path: Path, schema: Schema, key: str) -> Iterator[Chunk]:
    names = needed_columns(schema)
    start = 0
    with path.open("rb") as file:
        while lines := list(islice(file, chunk_rows(schema))):
            numbers = np.arange(start, start + len(lines))
            start += len(lines)
            full = [index for index, line in enumerate(lines) if line.strip()]
            parts = list(_of_lines([lines[i] for i in full], numbers[full]))
            if numbers[0] == 0 and any(part.table.height for part in parts):
                found = dict.fromkeys(name for part in parts for name in part.table.columns)
                check_columns(pl.DataFrame(schema=list(found)), schema, key)
            for chunk in parts:
                table = chunk.table
                absent = [name for name in names if name not in table.columns]
                # A column that no row of these has is empty in all of them.
                table = table.with_columns(
                    pl.Series(name, [None] * table.height) for name in absent
                )
                yield Chunk(table.select(names), chunk.rows, chunk.damaged)


def _of_lines(lines: list[bytes], rows: npt.NDArray[np.int64]) -> Iterator[Chunk]:
    """The lines as one table, or, where some are no records or don't fit together, as several."""
    if not lines:
        return
    try:
        table = pl.read_ndjson(io.BytesIO(b"".join(lines)), infer_schema_length=None)
        if table.height != len(lines):
            raise ValueError("not a record a line")
        yield Chunk(table, rows)
    except (pl.exceptions.PolarsError, ValueError):
        if len(lines) == 1:
            damage = Damage(int(rows[0]), "the line is no JSON record")
            yield Chunk(pl.DataFrame(), rows[:0], [damage])
            return
        half = len(lines) // 2
        yield from _of_lines(lines[:half], rows[:half])
        yield from _of_lines(lines[half:], rows[half:])
