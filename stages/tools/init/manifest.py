"""Tables that name images and are not called so: the commands that make a manifest of one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

import polars as pl

from stages.formats.folders.folder_kind import find_kind
from stages.formats.images.folder import SUFFIXES as IMAGES
from stages.formats.suffixes import SUFFIXES
from stages.formats.text.compressed import suffix_of
from stages.tools.init.columns import LEFT_OUT, Column, describe

NUM_LOOKED, MAX_NAME_BYTES, MAX_PATH_BYTES, MAX_MOVED = 100, 255, 1024, 3
# The folder of all sources, of which none is the whole.
RAW = "raw"


def tell_manifest(source: Path, target: str) -> str:
    """The way on where a source is a folder of images with a table; else nothing."""
    if not source.is_dir() or source.name == RAW or find_kind(source) != "images":
        return ""
    tables = [each for each in sorted(source.iterdir()) if _is_table(each)]
    if not tables:
        return ""
    names = ", ".join(each.name for each in tables)
    are = "is a table" if len(tables) == 1 else "are tables"
    return (
        f"\n  {names} there {are}, and one that names images is read where it is called "
        f"{_called(tables[0])}:\n  {_commands(tables[0], target, [])}"
    )


def judge_paths(column: pl.Series, source: Path, target: str) -> Column | None:
    """The line of a column that names image files below the table's folder; None of another.

    Judged by the first values.
    """
    if column.dtype != pl.String or not source.is_file():
        return None
    names = column.drop_nulls()
    if not _are_images(names.head(NUM_LOOKED).to_list(), source.parent):
        return None
    tops = sorted({top for name in names.unique().to_list() for top in Path(name).parts[:1]})
    line = describe(column, LEFT_OUT, "paths of image files, read with a manifest alone", "exclude")
    warning = (
        f"'{column.name}' names image files, which are read where the table is called "
        f"{_called(source)} in the folder of the images, and that folder is the source:\n  "
    )
    return replace(line, warnings=[f"{warning}{_commands(source, target, tops)}"])


def _are_images(names: Sequence[str], folder: Path) -> bool:
    return bool(names) and all(
        Path(name).suffix.lower() in IMAGES
        and not Path(name).is_absolute()
        and ".." not in Path(name).parts
        and all(len(part.encode()) <= MAX_NAME_BYTES for part in Path(name).parts)
        and len(name.encode()) <= MAX_PATH_BYTES
        and (folder / name).is_file()
        for name in names
    )


def _is_table(path: Path) -> bool:
    """Check whether a file may name images: arrays of NumPy don't."""
    is_shown = not path.name.startswith((".", "_"))
    suffix = suffix_of(path)
    return is_shown and suffix in SUFFIXES and suffix != ".npz" and path.is_file()


def _called(table: Path) -> str:
    """The name of a table as manifest, with the suffix of a compression behind its own."""
    inner = "" if suffix_of(table) == table.suffix.lower() else suffix_of(table)
    return f"manifest{inner}{table.suffix}"


def _commands(table: Path, target: str, tops: Sequence[str]) -> str:
    """The commands; `tops` are the files and folders beside the table that its paths begin with."""
    folder, moves = table.parent, []
    if folder.name == RAW:
        # Other sources lie there too.
        stem = table.name.split(".")[0]
        folder /= f"{stem}_images" if stem in tops else stem
        among = " ".join(quote(str(table.parent / top)) for top in tops[:MAX_MOVED])
        among += " …" if len(tops) > MAX_MOVED else ""
        moves = [f"mkdir {quote(str(folder))}", f"mv {among} {quote(str(folder))}/"]
    moves.append(f"mv {quote(str(table))} {quote(str(folder / _called(table)))}")
    return "; ".join([*moves, f"reprise init {quote(str(folder))} --target {quote(target)}"])
