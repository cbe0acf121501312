"""JSON lines: one record a line; whole, a chunk at a time, and written.

New rows are read as texts: their digits stay, and kinds may differ from row to row.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from stages.common.errors import shorten
from stages.features.encode import check_columns
from stages.features.kind import kind_of
from stages.features.numbers import row_shape
from stages.features.schema import WORDS, Feature, Schema
from stages.features.spelling import with_unit
from stages.formats.chunk import Chunk, Write, chunk_rows, needed_columns
from stages.formats.part import PART_ROWS, Part
from stages.formats.reading import Damage, Noticed
from stages.formats.text.csv_values import read_texts
from stages.formats.text.json_scan import (
    Line,
    Records,
    find_damage,
    parse_lines,
    parse_together,
    read_lines,
)
from stages.formats.text.plain_values import plain, refuse_patterns

# Of more columns with gaps it is faster to parse a line than to look for each name in it.
MAX_SEARCHED = 32


def read(path: Path, _key: str, noticed: Noticed) -> tuple[pl.DataFrame, list[Damage]]:
    """The whole table, each column of the type that all of its values have."""
    lines = next(read_lines(path, None, noticed), None)
    if lines is None:
        raise ValueError("it has no line with a record")
    records = parse_lines(lines, None)
    return plain(records.table), records.damaged


def parts(path: Path, key: str, noticed: Noticed, as_text: frozenset[str]) -> Iterator[Part]:
    """The lines as many at a time as a part has rows; all at once where parts differ in kind."""
    if as_text:
        yield Part(*read(path, key, noticed))
        return
    num_lines = 0
    for lines in read_lines(path, PART_ROWS, noticed):
        num_lines += len(lines)
        records = parse_lines(lines, None)
        yield Part(plain(records.table), records.damaged)
    if not num_lines:
        raise ValueError("it has no line with a record")


def chunks(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema`, each text read as what training has in that column."""
    for chunk in _read(path, schema, key, noticed):
        table = read_texts(plain(chunk.table), schema, noticed)
        yield Chunk(table, chunk.rows, chunk.damaged)


@contextmanager
def open_writer(path: Path, _metadata: Mapping[str, str]) -> Iterator[Write]:
    """A function that adds rows to a new file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        yield lambda frame: print(frame.write_ndjson(), end="", file=file)


def _read(path: Path, schema: Schema, key: str, noticed: Noticed) -> Iterator[Chunk]:
    """The columns of `schema` in the file: texts, except images, which are lists of numbers."""
    types = pl.Schema(dict.fromkeys(needed_columns(schema), pl.String))
    for feature in schema.features:
        dtype: pl.DataType = pl.Float64()
        # Of an image that training had in a file, the file's path.
        for _ in row_shape(feature) if feature.is_array and feature.decode is None else ():
            dtype = pl.List(dtype)
            types[feature.name] = dtype
    signed = [feature for feature in schema.features if feature.decimal is not None]
    numbers = {
        f.name: pl.Float64()
        for f in schema.features
        if kind_of(f.kind).NUMBERS and f.decimal is None
    }
    for lines in read_lines(path, chunk_rows(schema), noticed):
        # Nearly always what should be a number is one; where not, all come as texts.
        records = parse_together(lines, pl.Schema({**types, **numbers}))
        records = records or parse_lines(lines, types)
        if lines[0].row == 0 and records.table.height:
            _check_names(records.table, lines, schema, key)
        table = _spell_numbers(records, lines, signed)
        chunk = _without_nested(Chunk(table, records.rows, records.damaged), lines, schema)
        yield _without_unnamed(chunk, lines, schema, noticed)


def _spell_numbers(records: Records, lines: list[Line], signed: list[Feature]) -> pl.DataFrame:
    """The table with numbers of JSON in the signs that texts of their column have: 1.5 is 1,5."""
    if not signed:
        return records.table
    first = lines[0].row
    rows = [json.loads(lines[row - first].text) for row in records.rows.tolist()]
    columns = []
    for feature in signed:
        values = (row.get(feature.name) for row in rows)
        texts = [
            with_unit(str(value).replace(".", str(feature.decimal)), feature.unit)
            if type(value) in (int, float)
            else value
            for value in values
        ]
        is_text = pl.Series([isinstance(text, str) for text in texts], dtype=pl.Boolean)
        spelled = pl.Series(
            [text if isinstance(text, str) else None for text in texts], dtype=pl.String
        )
        columns.append(spelled.zip_with(is_text, records.table[feature.name]).alias(feature.name))
    return records.table.with_columns(columns)


def _check_names(table: pl.DataFrame, lines: list[Line], schema: Schema, key: str) -> None:
    """Stop where no line of the first ones names a column; one without a value may be named."""
    names = dict.fromkeys(each.name for each in table if each.null_count() < each.len())
    if len(names) < table.width:
        for line in lines:
            if find_damage(line.text) is None:
                names |= dict.fromkeys(json.loads(line.text))
    refuse_patterns(names)
    check_columns(pl.DataFrame(schema=dict.fromkeys(names, pl.String)), schema, key)


def _without_nested(chunk: Chunk, lines: list[Line], schema: Schema) -> Chunk:
    """The chunk without rows that hold a list or a record where a category or the key stands."""
    names = [f.name for f in schema.features if kind_of(f.kind).TYPE in ("string", "int64")]
    names += [] if schema.key is None else [schema.key]
    if not names or not chunk.table.height:
        return chunk
    found_in = [chunk.table[name].str.contains(r"^[\[{]").fill_null(value=False) for name in names]
    found: dict[int, Damage] = {}
    for place in pl.DataFrame(found_in).max_horizontal().arg_true():
        row = int(chunk.rows[place])
        record = json.loads(lines[row - lines[0].row].text)
        for name in names:
            if isinstance(record.get(name), list | dict):
                reason = f"{shorten(repr(record[name]))} is not one value"
                key = None if name == schema.key else record.get(schema.key)
                found[place] = Damage(row, reason, name, key)
    return _without(chunk, found)


def _without_unnamed(chunk: Chunk, lines: list[Line], schema: Schema, noticed: Noticed) -> Chunk:
    """The chunk without rows that do not name a column of which training had a value in each row.

    Of a column in which training had gaps, and of a text, it is one, which `noticed` counts.
    """
    found: dict[int, Damage] = {}
    features = [each for each in schema.features if chunk.table[each.name].null_count()]
    for place in _find_unsure(chunk, lines, [each.name for each in features]):
        row = int(chunk.rows[place])
        names = json.loads(lines[row - lines[0].row].text).keys()
        unnamed = [each for each in features if each.name not in names]
        needed = next((f.name for f in unnamed if not f.missing and f.kind not in WORDS), None)
        if needed is None:
            noticed.unnamed.update(each.name for each in unnamed)
        else:
            reason = "it is not named, and each train row has a value: write null for a gap"
            key = None if schema.key is None else chunk.table[schema.key][place]
            found[place] = Damage(row, reason, needed, key)
    return _without(chunk, found)


def _find_unsure(chunk: Chunk, lines: list[Line], names: list[str]) -> list[int]:
    """The places of rows in which a gap in one of these columns may be a name that is not there.

    Sure is `"name":` in the bytes of a line without a second record, and without a sign of escape.
    """
    if not names:
        return []
    gaps = [chunk.table[name].is_null() for name in names]
    if len(names) <= MAX_SEARCHED:
        texts = [lines[row - lines[0].row].text for row in chunk.rows.tolist()]
        line = pl.Series(texts, dtype=pl.Binary).cast(pl.String)
        unclear = line.str.contains("\\", literal=True) | (
            line.str.count_matches("{", literal=True) > 1
        )
        for place, name in enumerate(names):
            named = line.str.contains(f"{json.dumps(name, ensure_ascii=False)}:", literal=True)
            gaps[place] &= unclear | ~named
    return pl.DataFrame(gaps).max_horizontal().arg_true().to_list()


def _without(chunk: Chunk, found: dict[int, Damage]) -> Chunk:
    """The chunk without the rows at these places, which are damaged."""
    if not found:
        return chunk
    kept = [place for place in range(chunk.table.height) if place not in found]
    damaged = sorted([*chunk.damaged, *found.values()], key=lambda each: each.row)
    return Chunk(chunk.table[kept], chunk.rows[kept], damaged)
