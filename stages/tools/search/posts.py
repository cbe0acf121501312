"""The database's two tables: the batch that is posted, and the parts of it that were trained.

A search has one row in `reprise_posted`. Its batch is named by a digest of its content, and what
was trained is kept under that name: nobody takes the result of one batch for that of another,
and a machine that posts the same batch again finds what was trained of it. All statements may
take effect twice.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from stages.tools.search.database import Database
from stages.tune.training.told import Batch, read_batch

# In the place of a batch's name: the search has ended.
ENDED = ""


def post(database: Database, study: str, content: Mapping[str, Any]) -> Batch:
    """Post a batch, unless it is the one that is posted, and remove what was trained of others."""
    text = json.dumps(content)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    _put(database, study, name, text)
    return read_batch(name, json.loads(text))


def end(database: Database, study: str) -> None:
    """Leave a mark alone, by which machines that come late know that the search has ended."""
    _put(database, study, ENDED, "")


def _put(database: Database, study: str, name: str, text: str) -> None:
    database.ask(
        "INSERT INTO reprise_posted VALUES ($1, $2, $3) "
        "ON CONFLICT (study) DO UPDATE SET batch = excluded.batch, content = excluded.content",
        *(study, name, text),
    )
    database.ask("DELETE FROM reprise_trained WHERE study = $1 AND batch <> $2", study, name)


def remove_mark(database: Database, study: str) -> None:
    """Remove the mark that the search has ended: it begins anew."""
    statement = "DELETE FROM reprise_posted WHERE study = $1 AND batch = $2"
    database.ask(statement, study, ENDED)


def find_posted(database: Database, study: str) -> str | None:
    """The name of the batch that is posted, or ENDED; None: there is none."""
    rows = database.ask("SELECT batch FROM reprise_posted WHERE study = $1", study)
    return str(rows[0][0]) if rows else None


def read_posted(database: Database, study: str) -> Batch | None:
    """The batch that is posted; None: there is none."""
    statement = "SELECT batch, content FROM reprise_posted WHERE study = $1 AND batch <> $2"
    rows = database.ask(statement, study, ENDED)
    return read_batch(rows[0][0], json.loads(rows[0][1])) if rows else None


def find_others(database: Database, study: str) -> list[str]:
    """The names of other searches that have a batch posted."""
    statement = "SELECT study FROM reprise_posted WHERE study <> $1 AND batch <> $2 ORDER BY study"
    return [str(row[0]) for row in database.ask(statement, study, ENDED)]


def find_done(database: Database, study: str, batch: Batch) -> set[int]:
    """The numbers of the parts that have been trained."""
    statement = "SELECT part FROM reprise_trained WHERE study = $1 AND batch = $2"
    return {int(row[0]) for row in database.ask(statement, study, batch.name)}


def write_done(
    database: Database, study: str, batch: Batch, part: int, told: Mapping[str, Any]
) -> None:
    """Write down how a part has gone, if its batch is still posted.

    One that was trained twice, where a connection was lost, has come to the same.
    """
    database.ask(
        "INSERT INTO reprise_trained SELECT study, batch, CAST($3 AS bigint), CAST($4 AS text) "
        "FROM reprise_posted WHERE study = $1 AND batch = $2 ON CONFLICT DO NOTHING",
        *(study, batch.name, part, json.dumps(told)),
    )


def read_done(database: Database, study: str, batch: Batch) -> list[dict[str, Any]]:
    """The trials of all trained parts, each as it has gone, in the order of the parts."""
    statement = "SELECT content FROM reprise_trained WHERE study = $1 AND batch = $2 ORDER BY part"
    return [json.loads(row[0]) for row in database.ask(statement, study, batch.name)]
