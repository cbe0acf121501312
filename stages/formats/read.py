"""New rows from files of any format, or from a folder of images: some thousands at a time.

A file of any length takes the memory of one chunk. A line that is no row, such as one with a field
too many, is handed on as damaged and does not stop the others. Rows and their gaps are those that
prepare has, whose way is `prepare/table/table.py`: a format's file has both readings.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from stages.common.errors import Problem, UserError
from stages.features.kind import kind_of
from stages.features.schema import Schema
from stages.features.written import drop_all_words
from stages.formats.chunk import Chunk, needed_columns
from stages.formats.format import find_reader
from stages.formats.images.folder import SUFFIXES as IMAGES
from stages.formats.images.new_rows import load_chunk
from stages.formats.reading import Noticed
from stages.formats.suffixes import SUFFIXES
from stages.formats.text.compressed import suffix_of
from stages.formats.text.new_signs import (
    as_texts,
    find_differing,
    find_signs,
    read_signed,
    tell_signs,
    with_signs,
)

CANNOT_READ = (pl.exceptions.PolarsError, OSError, ValueError)


def read_chunks(
    path: Path, schema: Schema, key: str, noticed: Noticed | None = None
) -> Iterator[Chunk]:
    """The columns of `schema` in the file, in its order; `key` is the parameter that names it.

    `noticed` is told what a person should know. Raises UserError when the file can't be read, has
    no rows, or lacks a column.
    """
    check_file(path, key)
    noticed = noticed or Noticed()
    noticed.expected = needed_columns(schema)
    num_rows = 0
    try:
        for read in _read(path, schema, key, noticed):
            chunk = load_chunk(read, schema, path, key)
            num_rows += chunk.table.height + len(chunk.damaged)
            for feature in schema.features:
                if kind_of(feature.kind).NUMBERS:
                    noticed.add_infinite(feature.name, chunk.table[feature.name])
            table = drop_all_words(chunk.table, schema, noticed.gaps)
            yield replace(chunk, table=table)
    except CANNOT_READ as error:
        raise unreadable(error, path, key) from None
    if num_rows == 0:
        raise UserError(_problem(f"{path} has no rows", path, key))


def _read(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    """The chunks of a file, with the signs of its numbers where its first rows show others."""
    chunks = find_reader(path).chunks
    remarks, gaps = list(noticed.remarks), noticed.gaps.copy()
    unnamed = noticed.unnamed.copy()
    read = chunks(path, schema, key, noticed)
    first = next(read, None)
    differing = [] if first is None else find_differing(first.table, schema)
    if not differing:
        if first is not None:
            yield first
        # Else it would be kept in memory while the others are read.
        first = None
        yield from read
        return
    noticed.remarks, noticed.gaps, noticed.unnamed = remarks, gaps, unnamed
    whole = chunks(path, as_texts(schema, differing), key, Noticed(expected=noticed.expected))
    signs = find_signs(whole, differing, key)
    noticed.remarks += tell_signs(schema, signs)
    for chunk in chunks(path, with_signs(schema, signs), key, noticed):
        yield replace(chunk, table=read_signed(chunk.table, schema, signs))


def check_file(path: Path, key: str) -> None:
    """Raise UserError unless `path` is a folder, or a file of a known kind with something in it."""
    if path.is_dir():
        return
    if not path.exists():
        what = "file" if path.suffix else "folder"
        raise UserError(_problem(f"the {what} {path} does not exist", path, key))
    if not path.is_file():
        # To read a FIFO would wait for somebody who writes into it.
        raise UserError(_problem(f"{path} is no file, but a FIFO, a socket or a device", path, key))
    if suffix_of(path) not in SUFFIXES:
        message = f"{path}: not a kind of table that can be read"
        if path.suffix.lower() in IMAGES:
            message += f"; an image is read in a folder of images: name its folder, {path.parent}/"
        raise UserError(Problem(message, key=key, value=str(path), allowed=SUFFIXES))
    if path.stat().st_size == 0:
        raise UserError(_problem(f"{path} is empty", path, key))


def unreadable(error: Exception, path: Path, key: str) -> UserError:
    """The error of a format's reader with the file named; a UserError as it is."""
    if isinstance(error, UserError):
        return error
    reason = str(error).split("\n")[0][:300]
    return UserError(_problem(f"cannot read {path}: {reason}", path, key))


def _problem(message: str, path: Path, key: str) -> Problem:
    return Problem(message, key=key, value=str(path))
