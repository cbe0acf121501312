"""New rows, some thousands at a time: from CSV, TSV, Parquet, JSON lines, a folder of images.

A file of any length takes the memory of one chunk. What is no row at all, such as a line with a
field too many, is handed on as damaged and does not stop the others. What is a row, and what is a
gap in it, the readers in `stages/common` say, for prepare and for new rows alike.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from stages.common.errors import Problem, UserError
from stages.features.encode import as_boolean, as_numeric, check_columns
from stages.features.schema import Feature, Schema
from stages.formats.chunk import Chunk, chunk_rows, in_equal_parts, needed_columns
from stages.formats.csv import open_csv
from stages.formats.csv_values import read_texts
from stages.formats.image_folder import PATH, ImageError, Pixels, find_files, read_image
from stages.formats.json_chunks import read_json_chunks
from stages.formats.plain_values import plain
from stages.formats.read import check_file
from stages.formats.reading import Damage, Noticed
from stages.formats.suffixes import SUFFIXES

READ_BYTES = 1 << 20
CANNOT_READ = (pa.ArrowException, pl.exceptions.PolarsError)


def read_chunks(
    path: Path, schema: Schema, key: str, noticed: Noticed | None = None
) -> Iterator[Chunk]:
    """The columns of `schema` in the file, in its order; `key` is the parameter that names it.

    `noticed` is told what a person should know. Raises UserError when the file can't be read, has
    no rows, or lacks a column.
    """
    if not path.is_dir():
        check_file(path, key)
    noticed = noticed or Noticed()
    num_rows = 0
    try:
        for chunk in _read(path, schema, key, noticed):
            num_rows += chunk.table.height + len(chunk.damaged)
            for feature in schema.of_kind("numeric"):
                noticed.add_infinite(feature.name, chunk.table[feature.name])
            yield chunk
    except (*CANNOT_READ, OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).split("\n")[0][:300]
        raise UserError(Problem(f"cannot read {path}: {reason}", key, str(path))) from None
    if num_rows == 0:
        raise UserError(Problem(f"{path} has no rows", key, str(path)))


def _read(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    suffix = path.suffix.lower()
    if path.is_dir():
        yield from _of_folder(path, schema, key)
    elif suffix == ".parquet":
        for chunk in _of_parquet(path, schema, key):
            yield replace(chunk, table=plain(chunk.table, noticed))
    else:
        if suffix in (".jsonl", ".ndjson"):
            chunks = read_json_chunks(path, schema, key, noticed)
        else:
            chunks = in_equal_parts(_of_csv(path, schema, key, noticed), chunk_rows(schema))
        for chunk in chunks:
            table = read_texts(plain(chunk.table, noticed), schema)
            yield replace(chunk, table=table)


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
            _check_types(table.head(0), schema, key)
            yield Chunk(table, np.arange(start, start + table.height))
            start += table.height


def _check_types(empty: pl.DataFrame, schema: Schema, key: str) -> None:
    """Stop where no value of a column can be what the model takes: a date is no number."""
    for feature in schema.of_kind("numeric"):
        as_numeric(empty[feature.name], key)
    for feature in schema.of_kind("boolean"):
        as_boolean(empty[feature.name], key)


def _of_csv(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    file = open_csv(path, noticed)
    check_columns(pl.DataFrame(schema=file.names), schema, key)
    for texts in file.read(needed_columns(schema)):
        table = texts.table.select(needed_columns(schema))
        yield Chunk(table, texts.rows, texts.damaged)
