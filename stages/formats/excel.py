"""Excel (`.xlsx`): the cells of its one sheet as texts, of which values are made as of CSV.

A number is its shortest text, a date is 2024-01-31. A row without anything in it is none. Of merged
cells the first has the value, and the others are gaps, which is said, as are formulas that no
program has computed. A file with several filled sheets is refused: nobody knows which one is meant.
It is read, not written.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.features.encode import check_columns
from stages.features.schema import Schema
from stages.formats.chunk import Chunk, chunk_rows, needed_columns
from stages.formats.part import Part
from stages.formats.reading import Damage, Noticed
from stages.formats.text.csv_values import read_texts
from stages.formats.text.layout import NUM_RECORDS, Layout, lay_out_rows
from stages.formats.text.plain_values import plain, typed

INSTALL = "'make setup' installs it"
READ_ROWS = 10_000
MAX_RANGES_SHOWN = 5
# A formula has 8,192 signs at most.
XML_BYTES, MAX_TAG_BYTES = 1 << 20, 1 << 15
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?\bref="([A-Z]+)([0-9]+):([A-Z]+)([0-9]+)"')
# A cell with a formula and no value behind it, and its attributes. Libraries write such: a program
# that opens the file computes the value and stores it.
_FORMULA = re.compile(
    rb"<(?:\w+:)?c\s([^>]*)>\s*<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</(?:\w+:)?f>)\s*"
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)
_PLACE = re.compile(rb'\br="([A-Z]+[0-9]+)"')
# The number of a row in the sheet, from 1, and its cells.
Row = tuple[int, list[str]]
# The first row and column of merged cells, and the last ones.
Range = tuple[int, str, int, str]


def read(
    path: Path, _key: str, noticed: Noticed, as_text: frozenset[str] = frozenset()
) -> tuple[pl.DataFrame, list[Damage]]:
    """The whole table, each column of the type that all of its cells have, or `as_text`."""
    texts, damaged = read_plain(path, noticed)
    return (pl.DataFrame(), damaged) if damaged else (typed(texts, as_text), [])


def read_plain(path: Path, noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The whole table as texts."""
    layout, rows = _open(path, noticed)
    parts = list(_tables(layout, rows, READ_ROWS))
    damaged = [damage for part in parts for damage in part.damaged]
    empty = pl.DataFrame(schema=dict.fromkeys(layout.names, pl.String))
    return pl.concat([empty, *(plain(part.table) for part in parts)]), damaged


def parts(path: Path, key: str, noticed: Noticed, as_text: frozenset[str]) -> Iterator[Part]:
    """All rows as one part."""
    yield Part(*read(path, key, noticed, as_text))


def chunks(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema`, each text read as what training has in that column."""
    layout, rows = _open(path, noticed)
    check_columns(pl.DataFrame(schema=dict.fromkeys(layout.names, pl.String)), schema, key)
    for part in _tables(layout, rows, chunk_rows(schema)):
        texts = plain(part.table[needed_columns(schema)])
        yield Chunk(read_texts(texts, schema, noticed), part.rows, part.damaged)


def _tables(layout: Layout, rows: Iterable[Row], num_rows: int) -> Iterator[Chunk]:
    """The rows as texts, `num_rows` at a time; one with cells beyond the header is damaged."""
    names, start, iterator = layout.names, 0, iter(rows)
    while part := list(islice(iterator, num_rows)):
        whole, numbers, damaged = [], [], []
        for row, (line, cells) in enumerate(part, start):
            if any(cells[len(names) :]):
                reason = f"row {line} of the sheet has cells beyond the {len(names)} of the header"
                damaged.append(Damage(row, reason))
            else:
                whole.append((cells + [""] * len(names))[: len(names)])
                numbers.append(row)
        schema = dict.fromkeys(names, pl.String)
        table = pl.DataFrame(whole, schema=schema, orient="row")
        yield Chunk(table, np.array(numbers, np.int64), damaged)
        start += len(part)


def _open(path: Path, noticed: Noticed) -> tuple[Layout, Iterator[Row]]:
    sheet = _find_sheet(path)
    if sheet is None:
        raise ValueError("its sheet is empty")
    (merged, formulas), rows = _scan(sheet), _rows(sheet)
    first = list(islice(rows, NUM_RECORDS))
    width = max((place + 1 for _, cells in first for place, text in enumerate(cells) if text))
    padded = [(cells + [""] * width)[:width] for _, cells in first]
    layout = lay_out_rows(padded, [line for line, _ in first], noticed.expected)
    header = first[max(0, layout.start - 1)][0]
    remarks = [*layout.remarks, *_tell_merged(merged, header), *_tell_formulas(formulas)]
    noticed.remarks += [f"{path} {remark}" for remark in remarks]
    return layout, chain(first[layout.start :], rows)


def _find_sheet(path: Path) -> Any:
    """The one sheet that has something in it; None: none has."""
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise ValueError(f"Excel files take the library openpyxl: {INSTALL}") from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        filled = [sheet for sheet in book.worksheets if next(_filled(sheet), None)]
    except Exception as error:  # the library has no class of its own for them
        raise ValueError(f"it is no Excel file that can be read: {error}") from None
    if len(filled) > 1:
        names = ", ".join(f"'{sheet.title}'" for sheet in filled)
        said = f"it has {len(filled)} sheets with something in them, {names}"
        raise ValueError(f"{said}: keep one in the file")
    return filled[0] if filled else None


def _rows(sheet: Any) -> Iterator[Row]:
    """The rows with something in them; the file is closed behind the last."""
    yield from _filled(sheet)
    sheet.parent.close()


def _tell_merged(merged: list[Range], first_line: int) -> Iterator[str]:
    """Yield a remark on merged cells that reach to `first_line` of the sheet or below it."""
    ranges = [f"{a}{top}:{z}{bottom}" for top, a, bottom, z in merged if bottom >= first_line]
    if ranges:
        yield (
            f"has merged cells, {_name_first(ranges)}: the first of each has the value, and the "
            "others are read as gaps; unmerge them in Excel, and fill in the value where it holds"
        )


def _tell_formulas(cells: list[str]) -> Iterator[str]:
    """Yield a remark on cells with a formula and no value."""
    if cells:
        yield (
            f"has formulas without a stored value, {_name_first(cells)}: these cells are read as "
            "gaps; open the file in Excel or LibreOffice and save it, which stores the values"
        )


def _name_first(places: list[str]) -> str:
    rest = len(places) - MAX_RANGES_SHOWN
    return ", ".join(places[:MAX_RANGES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _scan(sheet: Any) -> tuple[list[Range], list[str]]:
    """The ranges of merged cells, from top to bottom, and the cells with a formula and no value.

    The library would read all cells anew for them, and tells no such formula from a gap.
    """
    ranges: list[Range] = []
    cells: list[str] = []
    rest = b""
    with sheet._get_source() as source:
        while piece := source.read(XML_BYTES):
            content = rest + piece
            end = 0
            for found in _MERGED.finditer(content):
                end = found.end()
                left, top, right, bottom = (part.decode() for part in found.groups())
                ranges.append((int(top), left, int(bottom), right))
            for found in _FORMULA.finditer(content):
                end = max(end, found.end())
                place = _PLACE.search(found[1])
                # A formula whose text is empty has a value: that text.
                if place is not None and b't="str"' not in found[1]:
                    cells.append(place[1].decode())
            # One may be cut where the piece is.
            rest = content[max(end, len(content) - MAX_TAG_BYTES) :]
    return sorted(ranges), cells


def _filled(sheet: Any) -> Iterator[Row]:
    for line, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [_text(value) for value in values]
        if any(cells):
            yield line, cells


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, datetime):
        return str(value.date() if value.time() == time() else value)
    if isinstance(value, date | time | timedelta):
        return str(value)
    return value.strip() if isinstance(value, str) else repr(value)
