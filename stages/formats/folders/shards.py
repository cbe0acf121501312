"""A folder of files of one format that are one table: in the order of their names.

The columns of all files are compared first: a type is widened to the one that holds the values of
each, as whole numbers beside fractions, and types that have none in common are an error that names
both files. Row numbers run on from file to file.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import polars as pl

import stages.formats.arrow as arrow
import stages.formats.csv as csv
import stages.formats.excel as excel
import stages.formats.images.arrays as arrays
import stages.formats.json_lines as json_lines
import stages.formats.parquet as parquet
from stages.common.counts import counted, either
from stages.common.errors import UserError
from stages.features.schema import Schema
from stages.formats.chunk import Chunk
from stages.formats.folders.folder_kind import list_shards
from stages.formats.part import Part
from stages.formats.reading import Damage, Noticed
from stages.formats.text.compressed import suffix_of
from stages.formats.text.plain_values import typed

TEXTS: dict[str, ModuleType] = {".csv": csv, ".tsv": csv, ".xlsx": excel}
TYPED: dict[str, ModuleType] = {
    ".parquet": parquet,
    **dict.fromkeys((".arrow", ".feather", ".ipc"), arrow),
    **dict.fromkeys((".jsonl", ".ndjson"), json_lines),
    ".npz": arrays,
}
HEADS: dict[str, Callable[[Path], Mapping[str, pl.DataType]]] = {
    ".parquet": pl.read_parquet_schema,
    **dict.fromkeys((".arrow", ".feather", ".ipc"), lambda path: arrow.read_head(path).schema),
}


def read(
    folder: Path, key: str, noticed: Noticed, as_text: frozenset[str] = frozenset()
) -> tuple[pl.DataFrame, list[Damage]]:
    """The whole table, each column of the type that all of its values have, or `as_text`."""
    files, suffix = _files(folder)
    if suffix in HEADS:
        unify({file: HEADS[suffix](file) for file in files})
    tables: dict[Path, pl.DataFrame] = {}
    damaged: list[Damage] = []
    remarks, start = _Remarks(), 0
    for file in files:
        own = Noticed(expected=noticed.expected)
        with _named(file):
            is_text = suffix in TEXTS
            found = (
                TEXTS[suffix].read_plain(file, own)
                if is_text
                else TYPED[suffix].read(file, key, own)
            )
        table, wrong = found
        damaged += [_moved(each, file, start) for each in wrong]
        start += table.height + len(wrong)
        tables[file] = table
        remarks.add(file, own, noticed)
    remarks.hand_on(noticed)
    if damaged:
        return pl.DataFrame(), damaged
    schema = unify({file: table.schema for file, table in tables.items()})
    table = pl.concat([_widened(each, schema, file) for file, each in tables.items()])
    return (typed(table, as_text) if suffix in TEXTS else table), []


def parts(folder: Path, key: str, noticed: Noticed, as_text: frozenset[str]) -> Iterator[Part]:
    """The rows file by file; files whose types stand in their lines or cells are read whole."""
    files, suffix = _files(folder)
    if suffix not in (".csv", ".tsv", *HEADS):
        yield Part(*read(folder, key, noticed, as_text))
        return
    schema = unify({file: HEADS[suffix](file) for file in files}) if suffix in HEADS else None
    names: dict[Path, pl.Schema] = {}
    module, start, remarks = {**TEXTS, **TYPED}[suffix], 0, _Remarks()
    for file in files:
        own = Noticed(expected=noticed.expected)
        with _named(file):
            for part in module.parts(file, key, own, as_text):
                damaged = [_moved(each, file, start) for each in part.damaged]
                start += part.table.height + len(damaged)
                table = part.table if schema is None else _widened(part.table, schema, file)
                if file not in names:
                    names[file] = pl.Schema(dict.fromkeys(table.columns, pl.String()))
                yield Part(table, damaged)
        unify({files[0]: names[files[0]], file: names[file]})
        remarks.add(file, own, noticed)
    remarks.hand_on(noticed)


def chunks(folder: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema`, file by file."""
    files, suffix = _files(folder)
    if suffix in HEADS:
        unify({file: HEADS[suffix](file) for file in files})
    module, start, remarks = {**TEXTS, **TYPED}[suffix], 0, _Remarks()
    for file in files:
        own, num_rows = Noticed(expected=noticed.expected), 0
        with _named(file):
            for chunk in module.chunks(file, schema, key, own):
                num_rows += len(chunk.rows) + len(chunk.damaged)
                damaged = [_moved(each, file, start) for each in chunk.damaged]
                yield Chunk(chunk.table, chunk.rows + start, damaged)
        start += num_rows
        remarks.add(file, own, noticed)
    remarks.hand_on(noticed)


def unify(schemas: Mapping[Path, Mapping[str, pl.DataType]]) -> dict[str, pl.DataType]:
    """The columns of the first file, each of the narrowest type that holds those of all files.

    Raises ValueError where files differ in their columns, or hold types that have none in common.
    """
    (first, own), *others = schemas.items()
    found = dict(own)
    origin = dict.fromkeys(own, first)
    for file, schema in others:
        for here, there, has, lacks in ((own, schema, first, file), (schema, own, file, first)):
            if absent := [name for name in here if name not in there]:
                shown = ", ".join(map(repr, absent[:5]))
                what = f"{either(len(absent), 'the column', 'the columns')} {shown}"
                raise ValueError(
                    f"{has.name} has {what}, and {lacks.name} has not: write "
                    f"{either(len(absent), 'it', 'them')} into {lacks.name}, without values if "
                    f"there are none, or move one of the two files elsewhere"
                )
        for name, dtype in schema.items():
            wider = _wider(found[name], dtype)
            if wider is None:
                raise ValueError(
                    f"the column '{name}' is of type {found[name]} in {origin[name].name} and "
                    f"{dtype} in {file.name}: write one kind of value in all files"
                )
            if found[name] == pl.Null:
                origin[name] = file
            found[name] = wider
    return found


def _wider(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    if one == other or other == pl.Null:
        return one
    if one == pl.Null:
        return other
    texts = (pl.String, pl.Categorical, pl.Enum)
    if one in texts and other in texts:
        return pl.String()
    if not (one.is_numeric() and other.is_numeric()) and not (one.is_nested() or one.is_temporal()):
        return None
    parts = [pl.DataFrame(schema={"x": dtype}) for dtype in (one, other)]
    try:
        return pl.concat(parts, how="vertical_relaxed").dtypes[0]
    except pl.exceptions.PolarsError:
        return None


def _widened(table: pl.DataFrame, schema: Mapping[str, pl.DataType], file: Path) -> pl.DataFrame:
    """The table with the types of all files. Raises ValueError at digits that would be lost."""
    columns = []
    for name, dtype in schema.items():
        column = table[name].cast(dtype)
        if table[name].dtype.is_integer() and dtype.is_float():
            lost = (column.cast(pl.Int128) != table[name].cast(pl.Int128)).fill_null(value=False)
            if lost.any():
                value = table[name][int(lost.arg_true()[0])]
                raise ValueError(
                    f"the column '{name}' holds fractions in other files, beside which the whole "
                    f"number {value} of {file.name} loses digits: write it as a text in all files"
                )
        columns.append(column)
    return pl.DataFrame(columns)


class _Remarks:
    """Collects what readers say of files: each thing once, with the number of files."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, file: Path, own: Noticed, noticed: Noticed) -> None:
        """Take in what was noticed of a file; its gaps join those of all."""
        noticed.gaps.update(own.gaps)
        noticed.separators |= own.separators
        for remark in own.remarks:
            known = remark.replace(str(file), "")
            self._first.setdefault(known, remark)
            self._counts[known] += 1

    def hand_on(self, noticed: Noticed) -> None:
        """Give the remarks to `noticed`."""
        for known, remark in self._first.items():
            rest = self._counts[known] - 1
            noticed.remarks.append(
                remark
                + (
                    f" (and so {either(rest, 'is', 'are')} {counted(rest, 'other file')})"
                    if rest
                    else ""
                )
            )


def _files(folder: Path) -> tuple[list[Path], str]:
    files = list_shards(folder)
    suffixes = sorted({suffix_of(file) for file in files})
    if len(suffixes) > 1:
        raise ValueError(f"its files are of several formats ({', '.join(suffixes)}): keep one")
    empty = [file.name for file in files if not file.stat().st_size]
    if empty:
        raise ValueError(f"{empty[0]} is empty: remove it")
    return files, suffixes[0]


def _moved(damage: Damage, file: Path, start: int) -> Damage:
    return replace(damage, row=damage.row + start, reason=f"{file.name}: {damage.reason}")


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Name the file in what its reader raises."""
    try:
        yield
    except UserError as error:
        problems = (replace(p, message=f"{file.name}: {p.message}") for p in error.problems)
        raise UserError(*problems) from None
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise ValueError(f"{file.name}: {error}") from None
