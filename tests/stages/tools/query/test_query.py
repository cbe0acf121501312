"""The rows of a query: each value as the database has it, or the column is refused."""

import sqlite3
import struct
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from stages.common.errors import UserError
from stages.tools.query import postgres, sqlite
from stages.tools.query.__main__ import _write_query
from stages.tools.query.address import Address, read_address
from tests.support.postgres import Postgres, start_postgres

VALUES = {
    "big": ("9223372036854775807", 2**63 - 1),
    "small": ("3::int2", 3),
    "amount": ("12.30::numeric(12, 2)", Decimal("12.30")),
    "free": ("1.000000000000000000001::numeric", Decimal("1.000000000000000000001")),
    "total": ("(SELECT sum(n) FROM (VALUES (10::bigint)) AS v (n))", Decimal(10)),
    "single": ("1.1::float4", struct.unpack("f", struct.pack("f", 1.1))[0]),
    "double": ("0.1::float8", 0.1),
    "yes": ("true", True),
    "words": ("'é \"x, '", 'é "x, '),
    "empty": ("''::text", ""),
    "mood": ("'ok'::mood", "ok"),
    "record": ("""'{"a": 1.10}'::json""", '{"a": 1.10}'),
    "name": (
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ),
    "day": ("'2024-01-31'::date", date(2024, 1, 31)),
    "local": ("'2024-01-31 12:00:00.123456'::timestamp", datetime(2024, 1, 31, 12, 0, 0, 123456)),  # noqa: DTZ001
    "zoned": ("'2024-01-31 12:00+02'::timestamptz", datetime(2024, 1, 31, 10, tzinfo=UTC)),
    "clock": ("'23:59:59.999999'::time", time(23, 59, 59, 999999)),
    'od"d %s': ("1", 1),
}
REFUSED = {
    "'10.0.0.1'::inet": '"x"::text AS "x"',
    "ARRAY[1, 2]": 'array_to_string("x"',
    "'1 day'::interval": "extract(epoch",
    "'1.20'::money": "numeric(19, 2)",
    "4000000000::oid": '"x"::bigint',
    "'\\x00'::bytea": "encode(",
    "1e38::numeric": "more than 38 digits",
}
WRONG = {
    "SELECT 'infinity'::timestamptz AS x": "'infinity'",
    "SELECT '-infinity'::date AS x": "'infinity'",
    "SELECT 1 AS x, 2 AS x": "two columns called 'x'",
    "SELECT id\nFROM nowhere": 'relation "nowhere" does not exist\n  LINE 2: FROM nowhere',
    "DELETE FROM kept RETURNING id": "syntax error",
    "SELECT set_value() AS x": "read-only transaction",
    "CREATE TABLE other (id int)": "gives no column",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with start_postgres() as server:
        server.run(
            "CREATE TYPE mood AS ENUM ('ok')",
            "CREATE TABLE kept AS SELECT 1 AS id",
            "CREATE FUNCTION set_value() RETURNS int AS "
            "'INSERT INTO kept VALUES (2) RETURNING id' LANGUAGE sql",
        )
        yield server


@pytest.fixture
def address(server: Postgres) -> Address:
    return Address("HERE", server.url)


def read_all(address: Address, query: str) -> pl.DataFrame:
    source = sqlite if address.is_sqlite else postgres
    with source.open_rows(address, query) as rows:
        return pl.DataFrame(pl.from_arrow(pa.Table.from_batches(rows.converted(), rows.schema)))


def test_every_value_is_kept_and_a_null_is_a_gap(address: Address) -> None:
    quoted = {name: name.replace('"', '""') for name in VALUES}
    shown = ", ".join(f'{sql} AS "{quoted[name]}"' for name, (sql, _) in VALUES.items())
    gaps = ", ".join(f'NULLIF("{name}", "{name}")' for name in quoted.values() if name != "record")
    gaps = gaps.replace('NULLIF("name"', 'NULL, NULLIF("name"')
    table = read_all(
        address, f"WITH t AS (SELECT {shown}) SELECT * FROM t UNION ALL SELECT {gaps} FROM t"
    )
    assert table.row(0) == tuple(value for _, value in VALUES.values())
    assert set(table.row(1)) == {None}


def test_numerics_that_are_no_number_are_counted_gaps(address: Address) -> None:
    query = "SELECT * FROM (VALUES ('NaN'::numeric), ('Infinity'), (1.5), (NULL)) AS v (x)"
    with postgres.open_rows(address, query) as rows:
        batches = list(rows.converted())
    assert pa.Table.from_batches(batches)["x"].to_pylist() == [Decimal("1.5"), None, None, None]
    assert rows.lost == {"x": 2}


def test_rows_are_sorted_by_all_columns_and_texts_by_their_bytes(address: Address) -> None:
    query = "SELECT * FROM (VALUES ('b', 1), ('B', 2), ('ä', 0), ('b', 0), (NULL, 1)) AS v (x, y)"
    rows = [("B", 2), ("b", 0), ("b", 1), ("ä", 0), (None, 1)]
    assert read_all(address, query).rows() == rows


@pytest.mark.parametrize("value", REFUSED)
def test_a_type_that_would_lose_its_values_is_refused(address: Address, value: str) -> None:
    with pytest.raises(UserError, match="can't hold these columns as they are") as caught:
        read_all(address, f"SELECT {value} AS x")
    assert REFUSED[value] in str(caught.value)


@pytest.mark.parametrize("query", WRONG)
def test_a_wrong_query_is_told_and_changes_nothing(
    address: Address, server: Postgres, query: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_all(address, query)
    assert WRONG[query] in str(caught.value)
    assert server.ask("SELECT count(*) FROM kept") == 1


def test_a_connection_that_ends_midway_is_told(address: Address, server: Postgres) -> None:
    query = "SELECT i, repeat('x', 500) AS x FROM generate_series(1, 200000) AS i"
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%'"
    seen = []

    def read() -> None:
        with postgres.open_rows(address, query) as rows:
            for batch in rows.converted():
                seen.append(batch.num_rows)
                if len(seen) == 1:
                    server.run(end)

    with pytest.raises(UserError, match="of HERE ended amid the rows"):
        read()
    assert 0 < sum(seen) < 200_000


def test_no_row_is_no_file(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "q.sql").write_text("SELECT 1 AS x WHERE false")
    monkeypatch.setenv("HERE", server.url)
    with pytest.raises(UserError, match="gives no row"):
        _write_query(tmp_path / "q.sql", "HERE", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hid@den@host/db",
        "postgresql://u:hid/den@host/db",
        "postgresql://u:hid?den@host/db",
        "postgresql://u:hid#den@host/db",
        "postgresql://u:hid:den@host/db",
        "postgresql://u:hid den@host/db",
        "postgresql://u:hid%zen@host/db",
        "postgresql://u:hidden/db",
        "hidden",
        "mysql://u:hidden@host/db",
    ],
)
def test_an_address_that_is_none_is_refused_without_a_word_of_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", url)
    with pytest.raises(UserError, match="the address in HERE") as caught:
        read_address("HERE")
    assert "hid" not in str(caught.value)
    assert "den@" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    with pytest.raises(UserError, match=r"--editable '\.\[postgresql\]'"):
        read_all(Address("HERE", "postgresql://u@h/db"), "SELECT 1 AS x")


def test_what_a_driver_says_is_told_without_passwords() -> None:
    address = Address("HERE", "postgresql://u:a%2Fb@h/db?sslpassword=other")
    assert address.hide("a/b a%2Fb other db") == "*** *** *** db"
    assert "a%2Fb" not in repr(address)


def test_a_file_of_sqlite_is_read_by_what_its_values_are(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a b.db") as connection:
        connection.execute("CREATE TABLE t (a, b, c, d, mixed, bytes)")
        rows = [(2**63 - 1, 1, "x", None, 1, b"x"), (None, 0.5, "", None, "", b"")]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    address = Address("HERE", f"sqlite:///{tmp_path}/a%20b.db")
    table = read_all(address, "SELECT a, b, c, d FROM t")
    assert table.rows() == [(None, 0.5, "", None), (2**63 - 1, 1.0, "x", None)]
    assert table.dtypes == [pl.Int64, pl.Float64, pl.String, pl.String]
    for query, said in (
        ("SELECT mixed FROM t", "NULLIF"),
        ("SELECT bytes FROM t", "hex"),
        ("SELECT a FROM t UNION ALL SELECT 0.5", "CAST"),
        ("SELECT a, a FROM t", "two columns called 'a'"),
        ("DELETE FROM t RETURNING a", "syntax error"),
    ):
        with pytest.raises(UserError) as caught:
            read_all(address, query)
        assert said in str(caught.value)
    with pytest.raises(UserError, match="unable to open"):
        read_all(Address("HERE", f"sqlite:///{tmp_path}/none.db"), "SELECT 1 AS x")
