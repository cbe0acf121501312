"""A PostgreSQL server of the tests' own: a new cluster in a folder, on a port of 127.0.0.1."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# With the characters that an address has to write otherwise.
PASSWORD, WRITTEN = "se/cr@t%1", "se%2Fcr%40t%251"
# It ends with the process whose pipe it reads, however that ends.
WATCHED = '"$@" & server=$!; read -r _; kill -INT $server; wait $server'
SECONDS = 30


@dataclass(frozen=True)
class Postgres:
    """A server with one user and one database."""

    port: int

    @property
    def url(self) -> str:
        return f"postgresql://reprise:{WRITTEN}@127.0.0.1:{self.port}/postgres"

    def run(self, *statements: str) -> None:
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)

    def ask(self, query: str) -> Any:
        from adbc_driver_postgresql import dbapi

        with dbapi.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0]


@contextmanager
def start_postgres() -> Iterator[Postgres]:
    """A server for as long as the block runs; skips the test where PostgreSQL is not installed."""
    pytest.importorskip("adbc_driver_postgresql", reason="the extra 'postgresql' is not installed")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed here (apt-get install postgresql)")
    with serve(binaries) as postgres:
        yield postgres


@contextmanager
def serve(binaries: Path) -> Iterator[Postgres]:
    """A server of the programs in `binaries`, for as long as the block runs."""
    # Root may not run it; the folders of pytest are its own user's alone.
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="reprise-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, "nobody", "nogroup")
        cluster = folder / "cluster"
        make = [binaries / "initdb", "-D", cluster, "-U", "reprise", "-A", "scram-sha-256"]
        make += ["--pwfile", folder / "password", "--no-sync", "--locale=C", "--encoding=UTF8"]
        done = subprocess.run(make, cwd=folder, capture_output=True, text=True, **user)
        assert done.returncode == 0, done.stderr
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [binaries / "postgres", "-D", cluster, "-p", str(port), "-F", "-h", "127.0.0.1"]
        command += ["-c", "unix_socket_directories="]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                ["sh", "-c", WATCHED, "sh", *command],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                **user,
            )
        try:
            _wait(binaries, port, folder / "log")
            yield Postgres(port)
        finally:
            server.communicate()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`; Debian has none of them on PATH. None: not there."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def _wait(binaries: Path, port: int, log: Path) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        ready = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        if subprocess.run(ready).returncode == 0:
            return
        time.sleep(0.05)
    pytest.fail(f"PostgreSQL does not answer:\n{log.read_text(errors='replace')[-2000:]}")
