"""The one reading of what is a record of JSON lines: strict, a damaged line named by its number.

Lines end with LF, CRLF or CR; an empty line is no row. A line that is no JSON record, a name that
stands twice in it, a NUL or half a character in a text, and a number that no float holds are
damage of that line alone.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.errors import shorten
from stages.formats.reading import Damage, Noticed
from stages.formats.text.pieces import describe_utf8_error, mark_last, read_pieces

MAX_LINE_BYTES = 256 << 20
# Of the largest whole number that a table holds.
MAX_DIGITS = 38
# What Polars reads without a word, and other than it stands there.
_SUSPICIOUS = (b"\\u0000", b"\\ud", b"\\uD")


class Line(NamedTuple):
    """A line with something in it; `number` counts from 1, `row` counts such lines from 0."""

    text: bytes
    number: int
    row: int


@dataclass(frozen=True)
class Records:
    """Rows of the file: `rows` (rows,) are the numbers of those in `table`."""

    table: pl.DataFrame
    rows: npt.NDArray[np.int64]
    damaged: list[Damage]


def read_lines(path: Path, num_rows: int | None, noticed: Noticed) -> Iterator[list[Line]]:
    """The lines of the file, `num_rows` at a time, or all of them at once."""
    waiting: list[Line] = []
    rest, number, row = b"", 0, 0
    for piece, is_last in mark_last(read_pieces(path, noticed)):
        texts = (rest + piece).splitlines(keepends=True)
        # A CR may be the half of a line's end, and a line be cut where the piece is.
        is_open = bool(texts) and not is_last and not texts[-1].endswith(b"\n")
        rest = texts.pop() if is_open else b""
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"line {number + len(texts) + 1} is too long to read")
        for text in texts:
            number += 1
            if record := text.strip():
                waiting.append(Line(record, number, row))
                row += 1
            if len(waiting) == num_rows:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def parse_lines(lines: list[Line], schema: pl.Schema | None) -> Records:
    """The lines as a table of `schema`, or of what all of them hold; what is none is set aside.

    Raises ValueError where the lines, each a record, hold kinds of values that make no column.
    """
    if (records := parse_together(lines, schema)) is not None:
        return records
    damaged, whole = [], []
    for line in lines:
        reason = find_damage(line.text)
        if reason is None:
            whole.append(line)
        else:
            damaged.append(Damage(line.row, f"line {line.number}: {reason}"))
    table = _parse(whole, schema, trust=True) if whole else pl.DataFrame(schema=schema)
    if table is None and schema is None:
        raise ValueError(_differing(whole))
    if table is None:
        whole = _fitting(whole, schema, damaged)
        table = _parse(whole, schema, trust=True) if whole else pl.DataFrame(schema=schema)
        assert table is not None
    damaged.sort(key=lambda damage: damage.row)
    return Records(table, np.array([line.row for line in whole], np.int64), damaged)


def parse_together(lines: list[Line], schema: pl.Schema | None) -> Records | None:
    """The lines in one go; None where one may be damaged, or holds what `schema` does not take."""
    table = _parse(lines, schema)
    if table is None:
        return None
    return Records(table, np.array([line.row for line in lines], np.int64), [])


def find_damage(text: bytes) -> str | None:
    """Return why a line is no record that can be read, with where; None where it is one."""
    reason = describe_utf8_error(text)
    if reason is not None:
        return reason
    try:
        record = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except json.JSONDecodeError as error:
        return f"it is no JSON record: {error.msg} in column {error.colno}"
    except RecursionError:
        return "its lists or records are nested too deeply"
    except ValueError as error:
        return str(error)
    if not isinstance(record, dict):
        return "it is no JSON record {…}, but " + shorten(text.decode())
    return _bad_text(record)


def _parse(
    lines: list[Line], schema: pl.Schema | None, *, trust: bool = False
) -> pl.DataFrame | None:
    """The lines in one go; None where any of them may be damaged or does not fit the others."""
    content = b"\n".join(line.text for line in lines)
    if not trust and any(mark in content for mark in _SUSPICIOUS):
        return None
    try:
        table = pl.read_ndjson(io.BytesIO(content), schema=schema, infer_schema_length=None)
    except (pl.exceptions.PolarsError, ValueError):
        return None
    if table.height != len(lines):
        return None
    if not trust:
        for name in table.columns:
            if content.count(json.dumps(name, ensure_ascii=False).encode() + b":") > len(lines):
                return None
    return table


def _fitting(lines: list[Line], schema: pl.Schema | None, damaged: list[Damage]) -> list[Line]:
    """The lines that fit `schema`, tried by halves; the others join `damaged`."""
    if _parse(lines, schema, trust=True) is not None:
        return lines
    if len(lines) == 1:
        reason = "it holds a value of another kind than the model takes: "
        reason += shorten(lines[0].text.decode())
        damaged.append(Damage(lines[0].row, f"line {lines[0].number}: {reason}"))
        return []
    half = len(lines) // 2
    return _fitting(lines[:half], schema, damaged) + _fitting(lines[half:], schema, damaged)


def _differing(lines: list[Line]) -> str:
    """Which column holds what in which line, of lines that make no table together."""
    seen: dict[str, tuple[str, int]] = {}
    for line in lines:
        for name, value in json.loads(line.text).items():
            kind = _kind(value)
            if kind is None:
                continue
            other, number = seen.setdefault(name, (kind, line.number))
            if other != kind:
                return (
                    f"'{name}' is {other} in line {number} and {kind} in line {line.number}: "
                    "write one kind of value in all lines"
                )
    return "its lines hold lists or records that differ in kind: write one kind in all lines"


def _kind(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        return "a list"
    return "a record" if isinstance(value, dict) else "a number or a text"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has more than one value named '{twice}'")
    return record


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is no JSON: write null for a gap")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{shorten(text)} is too large for a number: write null for a gap")
    return number


def _short(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"{shorten(text)} has too many digits for a number: write it as a text")
    return int(text)


def _bad_text(value: object) -> str | None:
    """The mistake in a text within `value`, however deep; None: there is none."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return next((found for each in value if (found := _bad_text(each))), None)
    if isinstance(value, str):
        if "\0" in value:
            return "a NUL stands in a text (\\u0000); remove it"
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            return "half a character stands in a text (a lone surrogate, \\ud800 to \\udfff)"
    return None
