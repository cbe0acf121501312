"""The head of a table, without reading the rest: the columns of its header, and their types.

Types follow from Parquet's footer, or from the first rows of a text file. What can't be read here
is left to the stage that reads it, which says why.
"""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.formats.folders.folder_kind import FolderKind, find_kind, find_manifests, list_shards
from stages.formats.images.folder import (
    IMAGE,
    LABEL,
    PATH,
    SPLIT,
    find_files,
    find_parts,
    is_image,
)
from stages.formats.images.idx_files import find_idx_pairs
from stages.formats.reading import Noticed
from stages.formats.text.compressed import suffix_of
from stages.formats.text.layout import find_layout
from stages.formats.text.pieces import read_pieces

# Of text files up to this long all rows are looked at, of longer ones the first.
READ_BYTES = 1 << 20
FIRST_ROWS = 1000
# Of a longer column the values are not counted.
COUNTED_ROWS = 1_000_000
LINES = (".jsonl", ".ndjson")
ARROW = (".arrow", ".feather", ".ipc")


@dataclass(frozen=True)
class Head:
    """The columns with their types: whole, number, boolean, text, array; other: none of these.

    `is_typed`: the types hold for all rows, not only for the first. `folder`: what a folder is.
    """

    path: Path
    columns: Mapping[str, str]
    is_typed: bool = True
    folder: FolderKind | None = None


def read_head(path: Path, expected: Collection[str] = ()) -> Head | None:
    """The head of a table in a file, or of a folder of images; None when it can't be read.

    `expected` are names of columns by which a header is known as one.
    """
    if path.is_dir():
        return _of_folder(path, expected)
    suffix = suffix_of(path)
    try:
        if suffix in ARROW:
            return Head(path, _of_arrow(path))
        if suffix == ".parquet":
            return Head(path, _of_parquet(path))
        if suffix in LINES:
            text, is_whole = _start_of(path)
            return Head(path, _of_rows(_json_rows(text, is_whole=is_whole)), is_whole)
        if suffix in (".csv", ".tsv"):
            text, is_whole = _start_of(path)
            names, rows = _csv_rows(text, suffix, expected, is_whole=is_whole)
            return Head(path, _of_csv(names, rows), is_whole)
    except (OSError, ValueError, csv.Error):
        pass
    return None


def read_column(path: Path, name: str) -> list[object] | None:
    """The values of a column that are there; None when it would take more than a moment."""
    suffix = suffix_of(path)
    try:
        if suffix == ".parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                if file.metadata.num_rows > COUNTED_ROWS:
                    return None
                column = file.read(columns=[name]).column(0)
                return [value for value in column.to_pylist() if value is not None]
        if path.is_dir() or suffix not in (*LINES, ".csv", ".tsv"):
            return None
        text, is_whole = _start_of(path)
        if not is_whole:
            return None
        if suffix in LINES:
            values = (row.get(name) for row in _json_rows(text, is_whole=True))
            return [value for value in values if value is not None]
        names, rows = _csv_rows(text, suffix, (name,), is_whole=True)
        place = names.index(name)
        return [row[place] for row in rows if len(row) > place and row[place]]
    except (OSError, ValueError, csv.Error):
        return None


def _of_folder(folder: Path, expected: Collection[str]) -> Head | None:
    """The columns of a folder, by what it is and the names of its files."""
    kind = find_kind(folder)
    if kind in ("manifest", "shards"):
        table = (find_manifests(folder) or list_shards(folder))[0]
        head = read_head(table, expected)
        is_typed = head is not None and head.is_typed and kind == "manifest"
        return head and replace(head, path=folder, is_typed=is_typed, folder=kind)
    columns = {IMAGE: "array", LABEL: "whole"}
    if kind == "images":
        columns = {PATH: "text", IMAGE: "array", LABEL: "text"}
    has_parts = False
    with suppress(UserError):
        if kind == "idx":
            has_parts = len(find_idx_pairs(folder, "")) > 1
        else:
            names = [name for name in find_files(folder, "") if is_image(folder / name)]
            has_parts = bool(find_parts(names))
    return Head(folder, columns | ({SPLIT: "text"} if has_parts else {}), folder=kind)


def type_of(values: Iterable[object]) -> str:
    """The type of a column of these values."""
    return _of_texts([str(value) for value in values])


def _of_parquet(path: Path) -> dict[str, str]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        return _of_schema(file.schema_arrow)


def _of_arrow(path: Path) -> dict[str, str]:
    from pyarrow import ipc

    with path.open("rb") as file:
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        return _of_schema((ipc.open_file if is_file else ipc.open_stream)(file).schema)


def _of_schema(schema: Iterable[Any]) -> dict[str, str]:
    from pyarrow import types

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


def _start_of(path: Path) -> tuple[bytes, bool]:
    """The first bytes of a text file as UTF-8, and whether they are all."""
    start = b""
    for piece in read_pieces(path, Noticed()):
        if start and len(start) + len(piece) > READ_BYTES:
            return start, False
        start += piece
    return (start, True) if len(start) <= READ_BYTES else (start[:READ_BYTES], False)


def _csv_rows(
    text: bytes, suffix: str, expected: Collection[str], *, is_whole: bool
) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows, without blanks around a value."""
    separator = "\t" if suffix == ".tsv" else ","
    layout = find_layout(text, separator, expected, is_last=is_whole)
    if layout is None:
        raise ValueError("no header")
    below = text[layout.start :].decode("utf-8", "replace").splitlines(keepends=True)
    lines = csv.reader(below, delimiter=layout.separator)
    rows = islice(lines, None if is_whole else FIRST_ROWS)
    return layout.names, [[value.strip() for value in row] for row in rows]


def _of_csv(names: list[str], rows: list[list[str]]) -> dict[str, str]:
    found = {}
    for place, name in enumerate(names):
        texts = [row[place] for row in rows if len(row) > place]
        found[name] = _of_texts([text for text in texts if text])
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


def _json_rows(text: bytes, *, is_whole: bool) -> Iterator[Mapping[str, object]]:
    lines = text.decode("utf-8", "replace").splitlines()
    for line in lines if is_whole else lines[:-1][:FIRST_ROWS]:
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
