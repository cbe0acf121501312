"""The connection to the database where the machines of a search meet, and its locks.

Who trains a part of a batch holds a lock of its connection to PostgreSQL. It ends with the process,
however that ends, and no sooner: a trial may take as long as it takes.
"""

import hashlib
import os
import time
from typing import Any

from stages.common.errors import UserError
from stages.tools.query.address import Address, read_address
from stages.tools.query.postgres import CONNECT_SECONDS, INSTALL

# One at a time makes the tables: who comes second would meet half of them.
MAKING = "reprise tables"
TABLES = (
    "CREATE TABLE IF NOT EXISTS reprise_posted (study text PRIMARY KEY, batch text NOT NULL, "
    "content text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS reprise_trained (study text, batch text, part bigint, "
    "content text NOT NULL, PRIMARY KEY (study, batch, part))",
)
# The server looks after a connection on which nothing is said, and drops that of a lost machine:
# after half a minute.
KEEPALIVES = (
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 4",
)
# This side does so as well: else it would wait for a lost server for a quarter of an hour.
TIMEOUTS = "keepalives_idle=10&keepalives_interval=5&keepalives_count=4&tcp_user_timeout=30000"
# Longer than the server takes to drop the connection that was lost, and with it its lock.
RECONNECT_SECONDS = 60.0
PAUSE_SECONDS = 1.0
# A statement that ends the connection each time is not tried for ever.
NUM_TRIES = 4


class Database:
    """A connection that is made anew when it is lost. Final."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._kept: list[str] = []
        try:
            self._connection = self._connect()
        except _errors() as error:
            raise self._to_user_error(error) from None

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; where the connection is lost it runs again.

        It may so take effect twice. Raises UserError for what the database refuses, and where
        it can't be reached for a minute.
        """
        for number in range(1, NUM_TRIES + 1):
            try:
                return self._run(statement, values)
            except _errors() as error:
                # A connection that still answers was not lost: the statement is wrong.
                if number == NUM_TRIES or self._answers():
                    raise self._to_user_error(error) from None
            self._reconnect()
        raise AssertionError

    def try_lock(self, name: str) -> bool:
        """Take the lock of that name, unless another connection has it.

        It is gone with the connection, and another machine may have it then.
        """
        return bool(self.ask("SELECT pg_try_advisory_lock($1)", number_of(name))[0][0])

    def keep_lock(self, name: str) -> bool:
        """Take a lock for as long as this process runs, over lost connections too.

        Where it can't be taken again, the next statement raises UserError.
        """
        if not self.try_lock(name):
            return False
        self._kept.append(name)
        return True

    def unlock(self, name: str) -> None:
        """Give the lock of that name back."""
        self.ask("SELECT pg_advisory_unlock($1)", number_of(name))

    def close(self) -> None:
        """End the connection, and with it its locks."""
        try:
            self._connection.close()
        except _errors():
            return

    def _reconnect(self) -> None:
        """Connect again, with the locks that are kept. Raises UserError after a minute in vain."""
        until = time.monotonic() + RECONNECT_SECONDS
        while True:
            self.close()
            try:
                self._connection = self._connect()
                if self._lock_again():
                    return
                failed = UserError(
                    "the connection to the database was lost, and another machine has taken this "
                    "search over meanwhile: 'reprise tune --work' helps it"
                )
            except _errors() as error:
                failed = self._to_user_error(error)
            if time.monotonic() >= until:
                raise failed
            time.sleep(PAUSE_SECONDS)

    def _lock_again(self) -> bool:
        statement = "SELECT pg_try_advisory_lock($1)"
        return all(self._run(statement, (number_of(name),))[0][0] for name in self._kept)

    def _answers(self) -> bool:
        try:
            self._run("SELECT 1", ())
        except _errors():
            return False
        return True

    def _run(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    def _connect(self) -> Any:
        from adbc_driver_postgresql import dbapi

        connection = dbapi.connect(with_timeouts(self._address.url), autocommit=True)
        for statement in KEEPALIVES:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        return connection

    def _to_user_error(self, error: Exception) -> UserError:
        return UserError(f"{self._address.variable}: {self._address.hide(str(error))}")


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


def with_timeouts(url: str) -> str:
    """The address with times after which a server that doesn't answer is given up."""
    return f"{url}{'&' if '?' in url else '?'}{TIMEOUTS}"


def number_of(name: str) -> int:
    """The number of a lock, from its name: 64 bits with a sign, as PostgreSQL has it."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def _errors() -> tuple[type[Exception], ...]:
    """The errors of the driver: of the connection, and of a statement."""
    from adbc_driver_manager import Error

    return Error, OSError
