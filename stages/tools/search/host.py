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
from queue import SimpleQueue
from threading import Thread
from typing import Any

from stages.common.errors import UserError
from stages.common.terminal import keep_printing
from stages.common.user_code import own_errors
from stages.tools.search.database import Database, open_database
from stages.tools.search.parts import (
    ENDED,
    Worker,
    find_done,
    make_worker,
    read_batch,
    work_once,
)
from stages.tune.training.shared import VARIABLE

WAIT_SECONDS = 0.2
# Who has it is the one machine that runs the stage.
HOST = "host"


def main() -> None:
    """Answer the stage until it closes the input; then end at once, whatever is going on."""
    keep_printing()
    # Ctrl-C reaches the stage as well, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    study, answers = sys.argv[1], os.fdopen(int(sys.argv[2]), "w", encoding="utf-8")
    messages: SimpleQueue[dict[str, Any]] = SimpleQueue()
    Thread(target=_listen, args=(messages,), daemon=True).start()

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    worker: Worker | None = None
    while True:
        message = messages.get()
        try:
            with own_errors(""):
                worker = worker or _begin(study)
                parts = share(worker, message["batch"]) if "batch" in message else []
        except UserError as error:
            answer({"problems": [asdict(problem) for problem in error.problems]})
            continue
        if "end" in message:
            end(worker.database, study)
        answer({"parts": parts})


def _listen(messages: "SimpleQueue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        messages.put(json.loads(line))
    os._exit(1)


def _begin(study: str) -> Worker:
    """The worker of the machine that runs the stage. Raises UserError where another one is."""
    database = open_database(VARIABLE)
    if not database.try_lock(f"{study}/{HOST}"):
        raise UserError(
            "another machine runs this search: 'reprise tune --work' helps it from this one"
        )
    return make_worker(database, study)


def share(worker: Worker, content: dict[str, Any]) -> list[dict[str, Any]]:
    """Have a batch trained, and return how its trials have gone, part by part."""
    batch = read_batch(content)
    database, study = worker.database, worker.study
    if batch.first == 0:
        # A search that begins anew really searches.
        forget(database, study)
    database.ask(
        "INSERT INTO reprise_batches VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        *(study, batch.first, json.dumps(content)),
    )
    parts = worker.divide(batch)
    while len(find_done(worker, batch)) < len(parts):
        if not work_once(worker, batch, parts):
            time.sleep(WAIT_SECONDS)
    rows = database.ask(
        "SELECT content FROM reprise_parts WHERE study = $1 AND first = $2 ORDER BY part",
        *(study, batch.first),
    )
    return [json.loads(row[0]) for row in rows]


def end(database: Database, study: str) -> None:
    """Leave a mark alone, by which machines that come late know that the search has ended."""
    forget(database, study)
    database.ask("INSERT INTO reprise_batches VALUES ($1, $2, '')", study, ENDED)


def forget(database: Database, study: str) -> None:
    """Remove all that the database has of the study."""
    for table in ("reprise_batches", "reprise_parts"):
        database.ask(f"DELETE FROM {table} WHERE study = $1", study)  # noqa: S608


if __name__ == "__main__":
    main()
