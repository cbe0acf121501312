"""Rows of a query to a file of SQLite, with Python's own driver.

A column of SQLite has no type, each value has one: the query is asked first which there are.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from stages.common.errors import UserError
from stages.tools.query.address import Address
from stages.tools.query.columns import Column, check_names, keep, refuse
from stages.tools.query.rows import Rows

BATCH_ROWS = 50_000
_KINDS = ("integer", "real", "text", "blob")
# Up to it a float tells every whole number from the next.
_EXACT = 2**53


@contextmanager
def open_rows(address: Address, query: str) -> Iterator[Rows]:
    """The rows of `query`, sorted by all of its columns, from a file that is only read.

    Raises UserError with what SQLite says.
    """
    try:
        uri = f"file:{quote(address.file)}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            # One state of the file for both questions.
            connection.execute("BEGIN")
            yield _ask(connection, query)
    except sqlite3.Error as error:
        raise UserError(f"SQLite says of {address.variable}: {error}") from None


def _ask(connection: sqlite3.Connection, query: str) -> Rows:
    source = f"FROM (\n{query}\n) AS q"
    told = connection.execute(f"SELECT * {source} LIMIT 0").description
    # Of two with one name it calls the second 'name:1'.
    names = [str(name) for name, *_ in told]
    first = [name.rpartition(":")[0] for name in names]
    check_names([f if f in names else n for f, n in zip(first, names, strict=True)])
    columns = _choose(connection, source, names)
    order = ", ".join(f"q.{_quoted(name)} COLLATE BINARY" for name in names)
    cursor = connection.execute(f"SELECT * {source} ORDER BY {order}")
    return Rows(columns, _batches(cursor, columns), {})


def _choose(connection: sqlite3.Connection, source: str, names: Sequence[str]) -> list[Column]:
    counted = []
    for name in map(_quoted, names):
        counted += [f"total(typeof(q.{name}) = '{kind}')" for kind in _KINDS]
        counted += [
            f"total(typeof(q.{name}) = 'integer' AND q.{name} NOT BETWEEN -{_EXACT} AND {_EXACT})"
        ]
    row = connection.execute(f"SELECT {', '.join(counted)} {source}").fetchone()
    width = len(_KINDS) + 1
    columns, refused = [], []
    for number, name in enumerate(names):
        *held, far = row[width * number : width * (number + 1)]
        kinds = [kind for kind, count in zip(_KINDS, held, strict=True) if count]
        said, quoted = " and ".join(kinds), _quoted(name)
        if kinds == ["integer"]:
            columns.append(Column(name, said, pa.int64(), keep))
        elif kinds == ["real"] or (kinds == ["integer", "real"] and not far):
            columns.append(Column(name, said, pa.float64(), keep))
        elif kinds in (["text"], []):
            columns.append(Column(name, said or "NULL", pa.string(), keep))
        elif "blob" in kinds:
            refused.append((name, said, f"hex({quoted}) AS {quoted}, or leave it out"))
        else:
            instead = f"CAST({quoted} AS TEXT) AS {quoted}"
            if "text" in kinds:
                instead += f", or NULLIF({quoted}, '') where an empty text is a gap"
            refused.append((name, said, instead))
    refuse(refused)
    return columns


def _batches(cursor: sqlite3.Cursor, columns: Sequence[Column]) -> Iterator[Any]:
    schema = pa.schema([(column.name, column.type) for column in columns])
    while rows := cursor.fetchmany(BATCH_ROWS):
        values = zip(*rows, strict=True)
        arrays = [pa.array(v, c.type) for v, c in zip(values, columns, strict=True)]
        yield pa.record_batch(arrays, schema=schema)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
