"""The database of a shared search: outages are waited out, mistakes are not."""

import pytest

from stages.common.errors import UserError
from stages.tools.query.address import Address
from stages.tools.search import database as databases
from stages.tools.search.database import Database, with_timeouts


class Flaky:
    """A connection that is lost for some statements, and refuses one. Final."""

    def __init__(self, losses: list[str]) -> None:
        self._losses = losses

    def __enter__(self) -> "Flaky":
        return self

    def __exit__(self, *_: object) -> None: ...

    def cursor(self) -> "Flaky":
        return self

    description = ("one",)

    def execute(self, statement: str, _values: object) -> None:
        if self._losses:
            raise OSError(self._losses.pop())
        if statement == "wrong":
            raise OSError("no such table at sqlite:secret")

    def fetchall(self) -> list[tuple[int]]:
        return [(1,)]

    def close(self) -> None: ...


def test_a_short_outage_is_waited_out_and_a_wrong_statement_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(databases.time, "sleep", waited.append)
    monkeypatch.setattr(databases, "_errors", lambda: (OSError,))
    losses: list[str] = []
    outages = 0

    def connect(_: Database) -> Flaky:
        nonlocal outages
        if outages:
            outages -= 1
            raise OSError("sqlite:secret is not there")
        return Flaky(losses)

    monkeypatch.setattr(Database, "_connect", connect)
    database = Database(Address("REPRISE_STUDY", "sqlite:secret"))
    losses += ["lost", "still lost"]
    outages = 3
    assert database.ask("right") == [(1,)]
    assert len(waited) == 3
    with pytest.raises(UserError, match=r"^REPRISE_STUDY: no such table at \*\*\*$"):
        database.ask("wrong")
    assert len(waited) == 3
    monkeypatch.setattr(databases, "RECONNECT_SECONDS", 0.0)
    losses += ["lost", "still lost"]
    outages = 1
    with pytest.raises(UserError, match=r"^REPRISE_STUDY: \*\*\* is not there$"):
        database.ask("right")
    outages = 1
    with pytest.raises(UserError, match=r"^REPRISE_STUDY: \*\*\* is not there$"):
        Database(Address("REPRISE_STUDY", "sqlite:secret"))


def test_a_server_that_is_lost_is_given_up() -> None:
    assert with_timeouts("postgresql://db/runs").startswith("postgresql://db/runs?keepalives_idle=")
    asked = with_timeouts("postgresql://db/runs?sslmode=require")
    assert asked.startswith("postgresql://db/runs?sslmode=require&keepalives_idle=")
