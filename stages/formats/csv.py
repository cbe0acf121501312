"""CSV and TSV: texts, of which values are made; whole, a chunk at a time, and written."""

import codecs
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.errors import Problem, UserError
from stages.features.encode import check_columns
from stages.features.schema import Schema
from stages.formats.chunk import Chunk, Write, chunk_rows, in_equal_parts, needed_columns
from stages.formats.part import PART_BYTES as PART_BYTES
from stages.formats.part import Part, join_types
from stages.formats.reading import Damage, Noticed
from stages.formats.text.compressed import suffix_of
from stages.formats.text.csv_scan import Block, Form, scan
from stages.formats.text.csv_typed import is_plain, join_blocks, read_typed
from stages.formats.text.csv_values import read_texts
from stages.formats.text.header import numbered
from stages.formats.text.layout import find_layout
from stages.formats.text.pieces import mark_last, read_pieces
from stages.formats.text.plain_values import plain, refuse_patterns, typed
from stages.parallel.thread_map import map_in_order, num_threads

# By them the header is found, and what divides the columns.
LAYOUT_BYTES = 1 << 18


@dataclass(frozen=True)
class Texts:
    """Rows of the file as plain texts: `rows` (rows,) are the numbers of those in `table`."""

    table: pl.DataFrame
    rows: npt.NDArray[np.int64]
    damaged: list[Damage]


@dataclass(frozen=True)
class CsvFile:
    """`names` are those in the header, without the blanks around them; or column_1, column_2, …"""

    names: list[str]
    separator: str
    blocks: Iterator[Block]
    has_header: bool

    def read(self, wanted: list[str]) -> Iterator[Texts]:
        """The columns `wanted` of all rows, once, as `plain` texts."""
        places = sorted(self.names.index(name) for name in wanted)
        names = [self.names[place] for place in places]
        for block in self.blocks:
            yield Texts(_parse(block, self.separator, places, names), block.rows(), block.damaged)


def read(path: Path, _key: str, noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The whole table, each column of the type that all of its texts have."""
    table, damaged = read_plain(path, noticed)
    return (pl.DataFrame(), damaged) if damaged else (typed(table), [])


def read_plain(path: Path, noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The rows that are whole, as texts; and the others."""
    file = open_csv(path, noticed)
    tables = [pl.DataFrame(schema=dict.fromkeys(file.names, pl.String))]
    damaged = []
    for texts in file.read(file.names):
        tables.append(texts.table)
        damaged += texts.damaged
    return pl.concat(tables), damaged


def parts(path: Path, _key: str, noticed: Noticed, as_text: frozenset[str]) -> Iterator[Part]:
    """The rows some megabytes at a time, on several threads."""
    file = open_csv(path, noticed)
    # What the columns were in the parts before this one: it spares the way by texts.
    seen: dict[str, pl.DataType] = dict.fromkeys(as_text, pl.String())

    def read_part(block: Block) -> Part:
        return read_block(block, file.separator, file.names, seen, as_text)

    yield header_part(file.names)
    for part in map_in_order(read_part, join_blocks(file.blocks, PART_BYTES), num_threads()):
        add_types(seen, part)
        yield part


def header_part(names: list[str]) -> Part:
    """A part of no row, with the columns that the header names."""
    return Part(pl.DataFrame(schema=dict.fromkeys(names, pl.String)))


def add_types(seen: dict[str, pl.DataType], part: Part) -> None:
    """Take into `seen` the types that columns of a part have."""
    for column in part.table.iter_columns():
        if column.null_count() < column.len():
            joined = join_types(seen.get(column.name, pl.Null()), column.dtype)
            seen[column.name] = joined or pl.String()


def read_block(
    block: Block,
    separator: str,
    names: list[str],
    seen: Mapping[str, pl.DataType],
    as_text: frozenset[str],
) -> Part:
    """The rows of a block; `seen` are types of columns in other parts, which spare time alone."""
    table = read_typed(block, separator, names, [seen.get(name) for name in names])
    if table is None:
        texts = _parse(block, separator, list(range(len(names))), names)
        table = typed(texts, as_text)
    return Part(table, block.damaged)


def chunks(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema`, each text read as what training has in that column."""
    for chunk in in_equal_parts(_read_texts(path, schema, key, noticed), chunk_rows(schema)):
        table = read_texts(chunk.table, schema, noticed)
        yield Chunk(table, chunk.rows, chunk.damaged)


def _read_texts(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    file = open_csv(path, noticed)
    if not file.has_header:
        _check_width(file.names, schema, key)
    check_columns(pl.DataFrame(schema=dict.fromkeys(file.names, pl.String)), schema, key)
    for texts in file.read(needed_columns(schema)):
        table = texts.table[needed_columns(schema)]
        yield Chunk(table, texts.rows, texts.damaged)


def _check_width(names: list[str], schema: Schema, key: str) -> None:
    """Raise UserError where columns without names can't be told apart: some are left out."""
    width = schema.headerless
    widths = [] if width is None else [width]
    if width is not None and schema.target.name == numbered(width)[-1]:
        widths.append(width - 1)
    if len(names) in widths:
        return
    trained = "a table with a header" if width is None else f"one of {width} columns without one"
    remedy = "write the names of the columns into its first line"
    message = f"the file has {len(names)} columns and no header, and the model learned from "
    raise UserError(Problem(f"{message}{trained}: {remedy}", key=key))


@contextmanager
def open_writer(path: Path, _metadata: Mapping[str, str]) -> Iterator[Write]:
    """A function that adds rows to a new file, below one header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        yield write_to(file, separator_of(path))


def write_to(file: TextIO, separator: str = ",") -> Write:
    """A function that adds rows to an open file."""
    header = True

    def write(frame: pl.DataFrame) -> None:
        nonlocal header
        file.write(frame.write_csv(separator=separator, include_header=header))
        header = False

    return write


def separator_of(path: Path) -> str:
    """The separator that the suffix promises."""
    return "\t" if suffix_of(path) == ".tsv" else ","


def open_csv(path: Path, noticed: Noticed) -> CsvFile:
    """The file with its header read. Raises ValueError where there is none that holds."""
    pieces = mark_last(read_pieces(path, noticed))
    data = b""
    for piece, is_last in pieces:
        data += piece
        if len(data) < LAYOUT_BYTES and not is_last:
            continue
        layout = find_layout(data, separator_of(path), noticed.expected, is_last=is_last)
        if layout is not None:
            noticed.remarks += [f"{path} {remark}" for remark in layout.remarks]
            noticed.separators.add(layout.separator)
            refuse_patterns(layout.names)
            rest = chain([data[layout.start :]], (piece for piece, _ in pieces))
            form = Form(layout.separator, len(layout.names))
            blocks = scan(rest, form, layout.line)
            return CsvFile(layout.names, layout.separator, blocks, layout.has_header)
    raise ValueError("it has no header")


def _parse(block: Block, separator: str, places: list[int], names: list[str]) -> pl.DataFrame:
    if block.num_whole == 0 or not places:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    # Polars takes the first mark away, which is one of the file's start alone.
    mark = codecs.BOM_UTF8 if block.content.startswith(codecs.BOM_UTF8) else b""
    table = pl.read_csv(
        mark + block.content,
        has_header=False,
        separator=separator,
        columns=places,
        infer_schema=False,
    )
    # The records are counted twice, by two programs: a difference would give rows others' values.
    if table.shape != (block.num_whole, len(names)):
        raise ValueError(f"{block.num_whole} rows from row {block.start} on became {table.height}")
    table = table.rename(dict(zip(table.columns, names, strict=True)))
    return table if is_plain(block.content, separator) else plain(table)
