"""CSV and TSV: texts, of which values are made; whole, a chunk at a time, and written."""

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.encode import check_columns
from stages.features.schema import Schema
from stages.formats.chunk import Chunk, Write, chunk_rows, in_equal_parts, needed_columns
from stages.formats.reading import Damage, Noticed
from stages.formats.text.csv_scan import (
    LINE_END,
    Block,
    Form,
    count_fields,
    next_record,
    scan,
    split_fields,
)
from stages.formats.text.csv_values import read_texts
from stages.formats.text.pieces import mark_last, read_pieces
from stages.formats.text.plain_values import plain, typed

OTHER_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'", ",": "','"}
NUM_LINES_LOOKED_AT = 50


@dataclass(frozen=True)
class Texts:
    """Rows of the file as they stand there: `rows` (rows,) are the numbers of those in `table`."""

    table: pl.DataFrame
    rows: npt.NDArray[np.int64]
    damaged: list[Damage]


@dataclass(frozen=True)
class CsvFile:
    """`names` are those in the header, without the blanks around them."""

    names: list[str]
    separator: str
    blocks: Iterator[Block]

    def read(self, wanted: list[str]) -> Iterator[Texts]:
        """The columns `wanted` of all rows, once, as texts; an empty field is a null."""
        places = sorted(self.names.index(name) for name in wanted)
        names = [self.names[place] for place in places]
        for block in self.blocks:
            yield Texts(_parse(block, self.separator, places, names), block.rows(), block.damaged)


def read(path: Path, _key: str, noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The whole table, each column of the type that all of its texts have."""
    file = open_csv(path, noticed)
    tables, damaged = [], []
    for texts in file.read(file.names):
        tables.append(plain(texts.table, noticed))
        damaged += texts.damaged
    if damaged or not tables:
        return pl.DataFrame(), damaged
    return typed(pl.concat(tables)), []


def chunks(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema`, each text read as what training has in that column."""
    for chunk in in_equal_parts(_read_texts(path, schema, key, noticed), chunk_rows(schema)):
        table = read_texts(plain(chunk.table, noticed), schema)
        yield Chunk(table, chunk.rows, chunk.damaged)


def _read_texts(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    file = open_csv(path, noticed)
    check_columns(pl.DataFrame(schema=file.names), schema, key)
    for texts in file.read(needed_columns(schema)):
        table = texts.table.select(needed_columns(schema))
        yield Chunk(table, texts.rows, texts.damaged)


@contextmanager
def open_writer(path: Path, _metadata: Mapping[str, str]) -> Iterator[Write]:
    """A function that adds rows to a new file, below one header."""
    with path.open("w", encoding="utf-8", newline="") as file:
        yield write_to(file, _separator(path))


def write_to(file: TextIO, separator: str = ",") -> Write:
    """A function that adds rows to an open file."""
    header = True

    def write(frame: pl.DataFrame) -> None:
        nonlocal header
        file.write(frame.write_csv(separator=separator, include_header=header))
        header = False

    return write


def _separator(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def open_csv(path: Path, noticed: Noticed) -> CsvFile:
    """The file with its header read. Raises ValueError where there is none that holds."""
    separator = _separator(path)
    pieces = mark_last(read_pieces(path, noticed))
    form, data, line = Form(separator), b"", 1
    for piece, is_last in pieces:
        data += piece
        while record := next_record(data, 0, form, line, is_last=is_last) if data else None:
            line += len(LINE_END.findall(data, 0, record.end))
            data = data[record.end :]
            if record.reason:
                raise ValueError(record.reason)
            if record.content is not None:
                names = _names(record.content, separator)
                check_shape(names, data, separator, line)
                form = Form(separator, len(names))
                rest = chain([data], (piece for piece, _ in pieces))
                return CsvFile(names, separator, scan(rest, form, line))
    raise ValueError("it has no header")


def _names(header: bytes, separator: str) -> list[str]:
    """The names of a header. Raises ValueError at columns of one name: which is meant?"""
    if header.startswith((b"sep=", b'"sep=')):
        raise ValueError("its first line is 'sep=…', which only Excel understands: remove it")
    names = [text.decode().strip() for text in split_fields(header, Form(separator))]
    for name, count in Counter(names).items():
        if count > 1:
            shown = repr(name) if name else "'' (no name)"
            places = [str(place) for place, each in enumerate(names, 1) if each == name]
            raise ValueError(
                f"it has more than one column named {shown}: columns {', '.join(places)}"
            )
    return names


def check_shape(names: list[str], data: bytes, separator: str, line: int) -> None:
    """Raise ValueError where the first lines say that this is no header, or another separator.

    `data` is what follows the header, from line `line` on.
    """
    first_lines = LINE_END.split(data, NUM_LINES_LOOKED_AT)[:NUM_LINES_LOOKED_AT]
    lines = [text for text in first_lines if text.strip() and b'"' not in text]
    if len(names) == 1:
        for other, shown in OTHER_SEPARATORS.items():
            count = names[0].count(other) if lines and other != separator else 0
            if count and all(text.count(other.encode()) == count for text in lines):
                raise ValueError(_other_separator(shown, separator, lines))
    counts = Counter(text.count(separator.encode()) + 1 for text in lines)
    if sum(counts.values()) < 3 or len(names) in counts:
        return
    width, how_many = counts.most_common(1)[0]
    if how_many < 0.8 * sum(counts.values()):
        return
    if width == len(names) + 1 and len(names) > 1 and not names[0].startswith("#"):
        raise ValueError(
            f"its header has {len(names)} fields, and the lines below it {width}: give the first "
            "column a name, or remove what follows the last separator"
        )
    counts_by_line = [text.count(separator.encode()) + 1 for text in first_lines]
    first = counts_by_line.index(width)
    raise ValueError(
        f"line {line - 1} has {count_fields(len(names))}, and those from line {line + first} on "
        f"{width}: remove titles and comments above the header"
    )


def _other_separator(shown: str, separator: str, lines: list[bytes]) -> str:
    kind = "a .tsv file has tabs" if separator == "\t" else "a .csv file has ','"
    hint = ""
    if any(re.search(rb"(?<!\d)\d+,\d+(?![\d,])", text) for text in lines):
        hint = ", with '.' for the comma in its numbers"
    named = "" if separator == "\t" or shown != "tabs" else ", or name it .tsv"
    return f"its columns are divided by {shown}, and {kind}: save it so{hint}{named}"


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
    return table.rename(dict(zip(table.columns, names, strict=True)))
