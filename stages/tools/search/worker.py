"""A machine that helps a search which another one runs: `reprise tune --work`.

It trains parts of the newest batch until the search has ended. Code, parameters and data of its
folder have to be those of the other machine: their fingerprint is the name of the study.
"""

import json
import sys
import time

from stages.common.errors import UserError, format_problem
from stages.common.terminal import keep_printing
from stages.common.user_code import own_errors
from stages.runtime.environment import check_versions
from stages.runtime.snapshot import fingerprint
from stages.tools.search.database import Database, open_database
from stages.tools.search.parts import ENDED, Batch, make_worker, read_batch, work_once
from stages.tune.training.groups import Part
from stages.tune.training.shared import VARIABLE, name_study

WAIT_SECONDS = 1.0


def main() -> None:
    """Work until the search has ended; a mistake is one screen of text, as in a stage."""
    keep_printing()
    try:
        check_versions("tune")
        with own_errors(""):
            work(open_database(VARIABLE), name_study(fingerprint("tune")))
    except UserError as error:
        print("\ntune --work stopped", file=sys.stderr)
        for problem in error.problems:
            print(format_problem(problem), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: what it was training, another machine trains again", file=sys.stderr)
        sys.exit(130)


def work(database: Database, study: str) -> None:
    """Train what is to be trained until the study has ended."""
    worker = make_worker(database, study)
    print(f"waits for work at the search {study}", flush=True)
    batch: Batch | None = None
    parts: list[Part] = []
    said = False
    while (newest := find_newest(database, study)) != ENDED:
        if newest is None:
            said = said or note_others(database)
        elif batch is None or newest != batch.first:
            batch = read_newest(database, study, newest)
            parts = [] if batch is None else worker.divide(batch)
        if batch is None or not work_once(
            worker, batch, parts, lambda t: print(f"trains {t}", flush=True)
        ):
            time.sleep(WAIT_SECONDS)
    print("the search has ended")


def find_newest(database: Database, study: str) -> int | None:
    """The number of the first trial of the newest batch, or ENDED; None: there is none."""
    rows = database.ask("SELECT max(first) FROM reprise_batches WHERE study = $1", study)
    return None if rows[0][0] is None else int(rows[0][0])


def read_newest(database: Database, study: str, first: int) -> Batch | None:
    """The batch with this first trial, unless the search has just ended."""
    rows = database.ask(
        "SELECT content FROM reprise_batches WHERE study = $1 AND first = $2", study, first
    )
    return read_batch(json.loads(rows[0][0])) if rows else None


def note_others(database: Database) -> bool:
    """Say so where the database has searches, and none of them is that of this folder."""
    rows = database.ask("SELECT DISTINCT study FROM reprise_batches WHERE first <> $1", ENDED)
    for (name,) in rows:
        print(f"note: the search {name} is of other code, parameters or data", flush=True)
    return bool(rows)


if __name__ == "__main__":
    main()
