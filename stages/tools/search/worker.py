"""A machine that helps a search which another one runs: `reprise tune --work`.

It trains parts of the posted batch until the search has ended. Code, parameters and data of its
folder have to be those of the other machine: their fingerprint is the name of the study.
"""

import sys
import time
from functools import partial

from stages.common.errors import UserError, format_problem
from stages.common.terminal import keep_printing
from stages.common.user_code import own_errors
from stages.runtime.environment import check_versions
from stages.runtime.input_watch import begin, follow
from stages.runtime.snapshot import name_snapshot
from stages.tools.search.database import Database, open_database
from stages.tools.search.parts import Worker, check_inputs, make_worker, name_search, work_once
from stages.tools.search.posts import ENDED, find_others, find_posted, read_posted
from stages.tune.training.shared import VARIABLE, name_study
from stages.tune.training.told import Batch

WAIT_SECONDS = 1.0


def main() -> None:
    """Work until the search has ended; a mistake is one screen of text, as in a stage."""
    keep_printing()
    try:
        check_versions("tune")
        snapshot, params = begin("tune")
        study = name_search(name_study(name_snapshot(snapshot)))
        with own_errors(""):
            database = open_database(VARIABLE)
            follow(snapshot)
            work(make_worker(database, study, params, partial(check_inputs, snapshot)))
    except UserError as error:
        print("\ntune --work stopped", file=sys.stderr)
        for problem in error.problems:
            print(format_problem(problem), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted: what it was training, another machine trains again", file=sys.stderr)
        sys.exit(130)


def work(worker: Worker) -> None:
    """Train what is to be trained until the study has ended."""
    database, study = worker.database, worker.study
    print(f"waits for work at the search {study}", flush=True)
    batch: Batch | None = None
    noted = False
    while (posted := find_posted(database, study)) != ENDED:
        if posted is None:
            batch, noted = None, noted or note_others(database, study)
        elif batch is None or posted != batch.name:
            batch = read_posted(database, study)
        if batch is None or not work_once(worker, batch, partial(print, flush=True)):
            time.sleep(WAIT_SECONDS)
    print("the search has ended")


def note_others(database: Database, study: str) -> bool:
    """Say so where the database has searches, and none of them is that of this folder."""
    others = find_others(database, study)
    for name in others:
        print(f"note: the search {name} is of {find_difference(name, study)}", flush=True)
    return bool(others)


def find_difference(name: str, study: str) -> str:
    """The part of a search's name that is another, in words."""
    (theirs, device, _), (ours, own_device, _) = name.split("-"), study.split("-")
    if theirs != ours:
        return "other code, parameters or data"
    return (
        "another version of 'reprise tune'" if device == own_device else f"another device: {device}"
    )


if __name__ == "__main__":
    main()
