"""The functions that the file of a format has, and the look-up of a format by a path.

To add a format: one file here with the four functions of `Format`, and its suffix in `suffixes.py`
and `folders/shards.py`. `tests/stages/formats/test_formats.py` then holds it to what all do.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, cast

import polars as pl

import stages.formats.folders.image_folder as image_folder
import stages.formats.folders.manifest as manifest
import stages.formats.folders.shards as shards
import stages.formats.images.arrays as arrays
from stages.features.schema import Schema
from stages.formats.chunk import Chunk, Write
from stages.formats.folders.folder_kind import FolderKind, find_kind
from stages.formats.part import Part
from stages.formats.reading import Damage, Noticed
from stages.formats.suffixes import FORMATS
from stages.formats.text.compressed import suffix_of


class Reader(Protocol):
    """Reads a table whole, in parts or in chunks: the same rows, with the same gaps.

    All raise ValueError, OSError or PolarsError with why a table can't be read, or a UserError,
    in which `key` is the parameter that names the table. `read.py` names the file, refuses an
    empty one and one without rows, and counts infinities.
    """

    def read(self, path: Path, key: str, noticed: Noticed, /) -> tuple[pl.DataFrame, list[Damage]]:
        """All rows and columns, texts as `plain` gives them; and the rows that can't be read.

        Where there are such rows, no table is needed.
        """

    def parts(
        self, path: Path, key: str, noticed: Noticed, as_text: frozenset[str], /
    ) -> Iterator[Part]:
        """All rows and columns as `read` has them, but each part with types of its own.

        The columns `as_text` are those that parts have been seen to disagree on: texts in all.
        """

    def chunks(self, path: Path, schema: Schema, key: str, noticed: Noticed, /) -> Iterator[Chunk]:
        """The needed columns, `chunk_rows` rows at a time, damaged ones among them.

        Raises UserError where the file lacks a column.
        """


class Format(Reader, Protocol):
    """A kind of file: read as by `Reader`, and written."""

    def open_writer(
        self, path: Path, metadata: Mapping[str, str], /
    ) -> AbstractContextManager[Write]:
        """A function that adds rows to a new file; `metadata` is kept where a format has it."""


def find_reader(path: Path) -> Reader:
    """The reader of a folder by what it is, or of a file by its suffix."""
    if path.is_dir():
        readers: dict[FolderKind, Reader] = {
            "idx": arrays,
            "shards": shards,
            "manifest": manifest,
            "images": image_folder,
        }
        return readers[find_kind(path)]
    return cast(Reader, FORMATS[suffix_of(path)]())


def find_format(path: Path) -> Format:
    """The format of a file that is written, by its suffix, which is one of WRITTEN."""
    return cast(Format, FORMATS[suffix_of(path)]())
