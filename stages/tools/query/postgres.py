"""Rows of a query to PostgreSQL, through ADBC: the server's binary COPY, read into Arrow."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from stages.common.errors import UserError
from stages.tools.query.address import Address
from stages.tools.query.columns import (
    MAX_DIGITS,
    Column,
    check_names,
    keep,
    keep_time,
    refuse,
    to_decimal,
)
from stages.tools.query.rows import Rows

CONNECT_SECONDS = "30"
INSTALL = "pip install --constraint constraints.txt --editable '.[postgresql]'"
BATCH_BYTES = str(16 << 20)
_HINT = "adbc.postgresql.batch_size_hint_bytes"
_PLAIN = ("int2", "int4", "int8", "float4", "float8", "bool", "time")
_TIMES = ("timestamp", "timestamptz", "date")
_AS_TEXT = ("json", "jsonb", "uuid")
_INSTEAD = {
    "interval": "extract(epoch FROM {0}) AS {0}",
    "money": "{0}::numeric(19, 2) AS {0}",
    "oid": "{0}::bigint AS {0}",
    "bytea": "encode({0}, 'hex') AS {0}, or leave it out",
    "array": "a column for each value, {0}[1] AS {0}_1, or array_to_string({0}, ' ') AS {0}",
}
_BROKEN = "amid the rows:"
_OTHER = "{0}::text AS {0}, or leave it out"


@contextmanager
def open_rows(address: Address, query: str) -> Iterator[Rows]:
    """The rows of `query`, sorted by all of its columns, in one transaction that only reads.

    Raises UserError with what the server says, without the password.
    """
    try:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi
    except ImportError:
        raise UserError(f"the driver of PostgreSQL is not installed: {INSTALL}") from None
    # A server that never answers would be waited for without end.
    os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)
    os.environ["PGCLIENTENCODING"] = "UTF8"
    try:
        with dbapi.connect(address.url) as connection, connection.cursor() as cursor:
            # One state of the database for the look at the digits and for the rows.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.adbc_statement.set_options(**{_HINT: BATCH_BYTES})
            yield _ask(cursor, query)
    except (Error, pa.ArrowException) as error:
        raise UserError(address.hide(_told(str(error), address))) from None


def _batches(reader: Any) -> Iterator[Any]:
    """The batches. Raises ArrowException, and no OSError, where the connection ends among them."""
    try:
        yield from reader
    except OSError as error:
        raise pa.ArrowException(f"{_BROKEN} {error}") from None


def _ask(cursor: Any, query: str) -> Rows:
    lost: dict[str, int] = {}
    columns = _choose(cursor, query, lost)
    shown = ", ".join(f"{column.asked or quoted(column.name)}" for column in columns)
    cursor.execute(f"SELECT {shown} FROM (\n{query}\n) AS q ORDER BY {_order(columns)}")
    return Rows(columns, _batches(cursor.fetch_record_batch()), lost)


def _choose(cursor: Any, query: str, lost: dict[str, int]) -> list[Column]:
    """The columns of the query, each with what it becomes in the snapshot."""
    schema = cursor.adbc_execute_schema(query)
    check_names(schema.names)
    fields = {field.name: (_declared(field), field.type) for field in schema}
    digits = {name: _digits(field) for name, field in zip(schema.names, schema, strict=True)}
    unknown = [n for n, (said, _) in fields.items() if said == "numeric" and digits[n] is None]
    if unknown:
        digits |= _measure(cursor, query, unknown)
    columns, refused = [], []
    for name, (said, type_) in fields.items():
        asked = f"{quoted(name)}::text AS {quoted(name)}"
        found = digits[name]
        if said == "numeric" and found is not None and 0 <= found[1] <= found[0] <= MAX_DIGITS:
            convert = to_decimal(name, *found, lost)
            columns.append(Column(name, said, pa.decimal128(*found), convert))
        elif said == "numeric":
            instead = f"more than {MAX_DIGITS} digits: {{0}}::float8 AS {{0}}, which rounds"
            instead = instead.format(quoted(name))
            refused.append((name, said, instead))
        elif said in _PLAIN:
            columns.append(Column(name, said, type_, keep))
        elif said in _TIMES:
            columns.append(Column(name, said, type_, keep_time(name, type_)))
        elif said in _AS_TEXT:
            columns.append(Column(name, said, pa.string(), keep, asked))
        elif pa.types.is_string(type_):
            columns.append(Column(name, said, pa.string(), keep))
        else:
            kind = "array" if pa.types.is_list(type_) else said
            refused.append((name, said, _INSTEAD.get(kind, _OTHER).format(quoted(name))))
    refuse(refused)
    return columns


def _declared(field: Any) -> str:
    return str((field.metadata or {}).get(b"POSTGRESQL:type", b"").decode())


def _digits(field: Any) -> tuple[int, int] | None:
    """The digits, all and after the point, that a numeric is declared with; None: with none."""
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1")) - 4
    if modifier < 0:
        return None
    digits, scale = modifier >> 16, ((modifier & 0x7FF) ^ 1024) - 1024
    # More than a decimal has, or fewer than none after the point: its values say what they need.
    return (digits, scale) if 0 <= scale <= digits <= MAX_DIGITS else None


def _measure(cursor: Any, query: str, names: Sequence[str]) -> dict[str, tuple[int, int] | None]:
    """The digits that the values of numerics without a declared number of them have."""
    asked = []
    for name in map(quoted, names):
        # Of NaN and infinity the scale is NULL.
        finite = f"FILTER (WHERE scale({name}) IS NOT NULL)"
        asked.append(f"max(length(trunc(abs({name}))::text)) {finite}, max(scale({name}))")
    cursor.execute(f"SELECT {', '.join(asked)} FROM (\n{query}\n) AS q")
    row = cursor.fetchone()
    found: dict[str, tuple[int, int] | None] = {}
    for number, name in enumerate(names):
        whole, scale = row[2 * number] or 1, row[2 * number + 1] or 0
        found[name] = (MAX_DIGITS, scale) if whole + scale <= MAX_DIGITS else None
    return found


def _order(columns: Sequence[Column]) -> str:
    """All columns, from the first on: texts by their bytes, as no locale changes them."""
    texts = [pa.types.is_string(column.type) for column in columns]
    names = [f"q.{quoted(column.name)}" for column in columns]
    parts = [f'{n}::text COLLATE "C"' if t else n for n, t in zip(names, texts, strict=True)]
    return ", ".join(parts)


def quoted(name: str) -> str:
    """`name` as SQL writes a name of any letters."""
    return '"' + name.replace('"', '""') + '"'


def _told(said: str, address: Address) -> str:
    """The words of the server, without the query and the driver's own words."""
    said = said.partition("\n\nQuery was:")[0].partition(". SQLSTATE:")[0].strip()
    if "Failed to connect:" in said:
        reason = said.partition("Failed to connect:")[2].strip()
        return f"no connection to the database of {address.variable}:\n  {reason}"
    if "ERROR:" in said:
        said = said.partition("ERROR:")[2].strip()
    elif said.startswith(_BROKEN):
        reason = said.removeprefix(_BROKEN).strip()
        return (
            f"the connection to the database of {address.variable} ended amid the rows:\n  {reason}"
        )
    lines = "\n".join(f"  {line}" for line in said.splitlines())
    return f"the database refuses the query:\n{lines}"
