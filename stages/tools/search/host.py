"""The process beside the stage tune that shares its batches: `python -m stages.tools.search.host`.

The stage writes a line of JSON for each batch to its input, and reads the results from the pipe
whose number is the second argument; the first names the study. It works itself, too.
"""

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

from stages.common.errors import UserError
from stages.common.terminal import keep_printing
from stages.common.user_code import own_errors
from stages.runtime.input_watch import join as join_stage
from stages.runtime.installed import check_installed
from stages.runtime.snapshot import read_snapshot
from stages.tools.search.database import Database, open_database
from stages.tools.search.parts import (
    Worker,
    check_inputs,
    is_open,
    make_worker,
    name_search,
    name_trials,
    work_once,
)
from stages.tools.search.posts import end, find_done, post, read_done, remove_mark
from stages.tune.training.batch import divide_batch
from stages.tune.training.shared import VARIABLE

WAIT_SECONDS = 0.2
# So long the others are waited for without a word.
QUIET_SECONDS = 10.0
# Who has it is the one machine that runs the stage.
HOST = "host"


def main() -> None:
    """Answer the stage until it closes the input; then end at once, whatever is going on."""
    keep_printing()
    # Ctrl-C reaches the stage as well, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    study, answers = name_search(sys.argv[1]), os.fdopen(int(sys.argv[2]), "w", encoding="utf-8")
    messages: SimpleQueue[dict[str, Any]] = SimpleQueue()
    Thread(target=_listen, args=(messages,), daemon=True).start()
    database: Database | None = None
    worker: Worker | None = None
    while True:
        message = messages.get()
        answer: dict[str, Any] = {}
        try:
            with own_errors(""):
                database = database or begin(open_database(VARIABLE), study)
                if "batch" in message:
                    worker = worker or _join(database, study)
                    answer = {"parts": share(worker, message["batch"])}
                if "end" in message:
                    end(database, study)
        except UserError as error:
            answer = {"problems": [asdict(problem) for problem in error.problems]}
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:
            # The stage has ended.
            os._exit(1)


def _listen(messages: "SimpleQueue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        messages.put(json.loads(line))
    os._exit(1)


def begin(database: Database, study: str) -> Database:
    """Make this machine the one that runs the stage. Raises UserError where another one does."""
    if not database.keep_lock(f"{study}/{HOST}"):
        raise UserError(
            "another machine runs this search: 'reprise tune --work' helps it from this one"
        )
    remove_mark(database, study)
    return database


def _join(database: Database, study: str) -> Worker:
    """The worker of the running stage, which has its parameters and is watched as it is."""
    params, snapshot = join_stage("tune"), read_snapshot("tune")
    check = check_installed if snapshot is None else partial(check_inputs, snapshot)
    return make_worker(database, study, params, check)


def share(worker: Worker, content: dict[str, Any]) -> list[dict[str, Any]]:
    """Have a batch trained, and return how its trials have gone, part by part.

    Raises UserError where the batch is gone from the database before all of it is trained.
    """
    database, study = worker.database, worker.study
    divided = divide_batch(worker.trainer, content["tried"], worker.said)
    parts = [part.places for part in divided]
    batch = post(database, study, {**content, "parts": parts})
    since, told = time.monotonic(), False
    while left := set(range(len(parts))) - find_done(database, study, batch):
        if not is_open(worker, batch):
            raise UserError("the batch that is trained was removed from the database")
        if work_once(worker, batch):
            since = time.monotonic()
            continue
        if worker.declined:
            # It has just divided the batch so.
            raise UserError(*worker.declined.values())
        if not told and time.monotonic() - since >= QUIET_SECONDS:
            told = True
            print(f"waits for other machines: trials {name_trials(batch, *sorted(left))}")
        time.sleep(WAIT_SECONDS)
    return read_done(database, study, batch)


if __name__ == "__main__":
    main()
