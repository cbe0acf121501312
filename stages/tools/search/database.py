"""The database where the machines of a search meet: tables of batches and results, and locks.

Who trains a part of a batch holds a lock of its connection to PostgreSQL. It ends with the process,
however that ends, and no sooner: a trial may take as long as it takes.
"""

import hashlib
import os
from typing import Any

from stages.common.errors import UserError
from stages.tools.query.address import Address, read_address
from stages.tools.query.postgres import CONNECT_SECONDS, INSTALL

# One at a time makes the tables: who comes second would meet half of them.
MAKING = "reprise tables"
TABLES = (
    "CREATE TABLE IF NOT EXISTS reprise_batches (study text, first bigint, content text NOT NULL, "
    "PRIMARY KEY (study, first))",
    "CREATE TABLE IF NOT EXISTS reprise_parts (study text, first bigint, part bigint, "
    "content text NOT NULL, PRIMARY KEY (study, first, part))",
)
# The server looks after a connection on which nothing is said, and drops that of a lost machine.
KEEPALIVES = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 4",
)


class Database:
    """A connection that is made anew when it is lost. Final."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._held: list[str] = []
        self._connection = self._connect()

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, at most twice, and return its rows; it may so take effect twice."""
        from adbc_driver_manager import Error

        try:
            return self._run(statement, values)
        except (Error, OSError):
            self.close()
            self._connection = self._connect()
            for name in self._held:
                self._run("SELECT pg_try_advisory_lock($1)", (number_of(name),))
        try:
            return self._run(statement, values)
        except (Error, OSError) as error:
            raise UserError(self._address.hide(f"the database of the search: {error}")) from None

    def try_lock(self, name: str) -> bool:
        """Take the lock of that name, unless another connection has it."""
        taken = bool(self.ask("SELECT pg_try_advisory_lock($1)", number_of(name))[0][0])
        if taken:
            self._held.append(name)
        return taken

    def unlock(self, name: str) -> None:
        """Give the lock back."""
        self._held.remove(name)
        self.ask("SELECT pg_advisory_unlock($1)", number_of(name))

    def close(self) -> None:
        """End the connection, and with it its locks."""
        from adbc_driver_manager import Error

        try:
            self._connection.close()
        except (Error, OSError):
            return

    def _run(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def _connect(self) -> Any:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi

        try:
            connection = dbapi.connect(self._address.url, autocommit=True)
            for statement in KEEPALIVES:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
        except (Error, OSError) as error:
            message = self._address.hide(str(error))
            raise UserError(f"{self._address.variable}: {message}") from None
        return connection


def open_database(variable: str) -> Database:
    """The database that an environment variable names, with its tables.

    Raises UserError where it is none, or can't be reached.
    """
    address = read_address(variable)
    if address.is_sqlite:
        raise UserError(f"{variable} names a file: several machines meet in postgresql://…")
    try:
        import adbc_driver_postgresql  # noqa: F401
    except ImportError:
        raise UserError(f"the driver of PostgreSQL is not installed: {INSTALL}") from None
    # A server that never answers would be waited for without end.
    os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)
    database = Database(address)
    database.ask("SELECT pg_advisory_lock($1)", number_of(MAKING))
    for statement in TABLES:
        database.ask(statement)
    database.ask("SELECT pg_advisory_unlock($1)", number_of(MAKING))
    return database


def number_of(name: str) -> int:
    """The number of a lock, from its name: 64 bits with a sign, as PostgreSQL has it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
