"""The parts of a batch of trials: claimed, trained and written down by any machine.

A part are trials that train together, a pack or a single one. How a batch is divided follows from
the batch alone, so that all machines mean the same by a part's number.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stages.common.config import Overrides
from stages.common.params import read_params
from stages.tools.search.database import Database
from stages.tune.journal import to_trial
from stages.tune.params import TuneParams
from stages.tune.pruners import find_ended, make_pruner
from stages.tune.training.batch import (
    Trainer,
    divide_batch,
    make_trainer,
    read_start,
    train_parts,
)
from stages.tune.training.groups import Part
from stages.tune.training.shared import pack
from stages.tune.trials import Trial

# In the place of a batch's first trial: the search has ended.
ENDED = -1


@dataclass(frozen=True)
class Batch:
    """Trials to train, of which the first has the number `first`; `before` are all earlier ones."""

    first: int
    tried: list[Overrides]
    before: list[Trial]


@dataclass(frozen=True)
class Worker:
    """One machine at work at a study."""

    database: Database
    study: str
    section: TuneParams
    trainer: Trainer
    told: set[str] = field(default_factory=set)

    def divide(self, batch: Batch) -> list[Part]:
        """The parts of a batch."""
        return divide_batch(self.trainer, batch.tried, self.told)


def make_worker(database: Database, study: str) -> Worker:
    """A worker that has loaded the data of this folder. Raises UserError as the stage does."""
    params = read_params("tune")
    section = params.section("tune", TuneParams)
    start = read_start(params, section.epochs)
    return Worker(
        database, study, section, make_trainer(start, keep_scores=section.keep_scores > 0)
    )


def read_batch(content: Mapping[str, Any]) -> Batch:
    """A batch from its JSON."""
    before = [to_trial(each) for each in content["before"]]
    return Batch(content["first"], content["tried"], before)


def work_once(
    worker: Worker, batch: Batch, parts: list[Part], say: Callable[[str], None] = lambda _: None
) -> bool:
    """Train the first part that nobody has trained or is training; return whether there was one."""
    done = find_done(worker, batch)
    for number, part in enumerate(parts):
        lock = f"{worker.study}/{batch.first}/{number}"
        if number in done or not worker.database.try_lock(lock):
            continue
        try:
            # It may have been written down between the look and the lock, and the search may have
            # ended with it.
            if number in find_done(worker, batch) or not is_open(worker, batch):
                continue
            say(", ".join(str(batch.first + place + 1) for place in part[0]))
            content = json.dumps(train_part(worker, batch, part))
            # Trained twice, where a connection was lost, it has come to the same.
            worker.database.ask(
                "INSERT INTO reprise_parts SELECT $1::text, $2::bigint, $3::bigint, $4::text WHERE "
                "EXISTS (SELECT 1 FROM reprise_batches WHERE study = $1 AND first = $2) "
                "ON CONFLICT DO NOTHING",
                *(worker.study, batch.first, number, content),
            )
        finally:
            worker.database.unlock(lock)
        return True
    return False


def find_done(worker: Worker, batch: Batch) -> set[int]:
    """The numbers of the parts that have been trained."""
    rows = worker.database.ask(
        "SELECT part FROM reprise_parts WHERE study = $1 AND first = $2", worker.study, batch.first
    )
    return {int(row[0]) for row in rows}


def is_open(worker: Worker, batch: Batch) -> bool:
    """Check whether the batch is still there: it is not, once the search has ended."""
    rows = worker.database.ask(
        "SELECT 1 FROM reprise_batches WHERE study = $1 AND first = $2", worker.study, batch.first
    )
    return bool(rows)


def train_part(worker: Worker, batch: Batch, part: Part) -> dict[str, Any]:
    """Train a part; return how each of its trials has gone, by its place in the batch."""
    sign = 1 if worker.trainer.direction == "minimize" else -1
    pruner = make_pruner(worker.section, sign, batch.before, ())
    reached: dict[int, list[float]] = {place: [] for place in part[0]}

    def on_epoch_end(epoch: int, values: Mapping[int, float]) -> set[int]:
        for place, value in values.items():
            reached[place].append(value)
        return find_ended(pruner, epoch, values, worker.section.epochs, batch.first)

    results = train_parts(worker.trainer, [part], batch.tried, on_epoch_end)
    return {
        str(place): {
            "values": reached[place],
            "end": result.end,
            "value": result.value,
            "scores": pack(result.scores),
        }
        for place, result in results.items()
    }
