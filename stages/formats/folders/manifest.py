"""A folder of images with a table of them: `manifest.csv`, or of another format."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import polars as pl

from stages.features.schema import Schema
from stages.formats.chunk import Chunk
from stages.formats.folders.folder_kind import find_manifests
from stages.formats.part import Part
from stages.formats.reading import Damage, Noticed
from stages.formats.suffixes import FORMATS
from stages.formats.text.compressed import suffix_of


def read(folder: Path, key: str, noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The table, in which columns may hold paths below `folder`."""
    path, format_of = _find(folder)
    table, damaged = format_of.read(path, key, noticed)
    return table, damaged


def parts(folder: Path, key: str, noticed: Noticed, as_text: frozenset[str]) -> Iterator[Part]:
    """The table in parts, in which columns may hold paths below `folder`."""
    path, format_of = _find(folder)
    yield from format_of.parts(path, key, noticed, as_text)


def chunks(folder: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema` in the table."""
    path, format_of = _find(folder)
    yield from format_of.chunks(path, schema, key, noticed)


def _find(folder: Path) -> tuple[Path, ModuleType]:
    path, *others = find_manifests(folder)
    if others:
        raise ValueError(f"it holds {path.name} and {others[0].name}: keep one")
    return path, FORMATS[suffix_of(path)]()
