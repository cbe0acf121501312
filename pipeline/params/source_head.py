"""The head of a table, without reading the rest: the columns of its header, and their types.

Types follow from Parquet's footer, or from the first rows of a text file. What can't be read here
is left to the stage that reads it, which says why.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

# Of text files up to this long all rows are looked at, of longer ones the first.
READ_BYTES = 1 << 20
FIRST_ROWS = 1000
# Of a longer column the values are not counted.
COUNTED_ROWS = 1_000_000
# The words of `stages/formats/text/plain_values.py` for 'no value'.
GAPS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
FOLDER = {"path": "text", "image": "array", "label": "text"}
LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Head:
    """The columns with their types: whole, number, boolean, text, array; other: none of these.

    `is_typed`: the types hold for all rows, not only for the first.
    """

    path: Path
    columns: Mapping[str, str]
    is_typed: bool = True


def read_head(path: Path) -> Head | None:
    """The head of a table in a file, or of a folder of images; None when it can't be read."""
    if path.is_dir():
        return Head(path, FOLDER)
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return Head(path, _of_parquet(path))
        if suffix in LINES:
            return Head(path, _of_rows(_json_rows(path)), path.stat().st_size < READ_BYTES)
        if suffix in (".csv", ".tsv"):
            columns = _of_csv(path, "\t" if suffix == ".tsv" else ",")
            return Head(path, columns, path.stat().st_size < READ_BYTES)
    except (OSError, ValueError, csv.Error):
        pass
    return None


def read_column(path: Path, name: str) -> list[object] | None:
    """The values of a column that are there; None when it would take more than a moment."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                if file.metadata.num_rows > COUNTED_ROWS:
                    return None
                column = file.read(columns=[name]).column(0)
                return [value for value in column.to_pylist() if value is not None]
        if path.is_dir() or path.stat().st_size > READ_BYTES:
            return None
        if suffix in LINES:
            rows = (row.get(name) for row in _json_rows(path))
            return [value for value in rows if value is not None]
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",")
            place = [word.strip() for word in next(lines)].index(name)
            texts = [line[place].strip() for line in lines if len(line) > place]
        return [text for text in texts if text not in GAPS]
    except (OSError, ValueError, csv.Error):
        return None


def type_of(values: Iterable[object]) -> str:
    """The type of a column of these values."""
    return _of_texts([str(value) for value in values])


def _of_parquet(path: Path) -> dict[str, str]:
    from pyarrow import parquet, types

    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow

    def name(kind: object) -> str:
        if types.is_dictionary(kind):
            kind = kind.value_type  # type: ignore[attr-defined]
        if types.is_integer(kind):
            return "whole"
        if types.is_floating(kind) or types.is_decimal(kind):
            return "number"
        if types.is_boolean(kind):
            return "boolean"
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return "text"
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            return "array"
        return "other"

    return {field.name: name(field.type) for field in schema}


def _of_csv(path: Path, separator: str) -> dict[str, str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter=separator)
        header = [name.strip() for name in next(lines, [])]
        if len(set(header)) < len(header):
            raise ValueError("columns of one name")
        if len(header) == 1 and (";" in header[0] or header[0].startswith("#")):
            raise ValueError("another separator, or a comment")
        rows = list(islice(lines, _num_rows(path)))
    found = {}
    for place, name in enumerate(header):
        texts = [row[place].strip() for row in rows if len(row) > place]
        found[name] = _of_texts([text for text in texts if text not in GAPS])
    return found


def _of_texts(texts: list[str]) -> str:
    if not texts:
        return "other"
    if all(text in ("true", "false") for text in texts):
        return "boolean"
    for kind, read in (("whole", int), ("number", float)):
        try:
            for text in texts:
                # Python's own spelling: 1_000 is a text.
                read("_" if "_" in text else text)
        except ValueError:
            continue
        return kind
    return "text"


def _num_rows(path: Path) -> int | None:
    return None if path.stat().st_size < READ_BYTES else FIRST_ROWS


def _json_rows(path: Path) -> Iterable[Mapping[str, object]]:
    with path.open(encoding="utf-8-sig") as file:
        for line in islice(file, _num_rows(path)):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, Mapping):
                    raise ValueError("not a record a line")
                yield row


def _of_rows(rows: Iterable[Mapping[str, object]]) -> dict[str, str]:
    kinds = {bool: "boolean", int: "whole", float: "number", str: "text", list: "array"}
    found: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            seen = found.setdefault(name, set())
            if value is not None:
                seen.add(kinds.get(type(value), "other"))
    return {
        name: next(iter(seen))
        if len(seen) == 1
        else "number"
        if seen == {"whole", "number"}
        else "other"
        for name, seen in found.items()
    }
