"""The parts of a batch of trials: claimed, trained and written down by any machine.

A part are trials that train together, a pack or a single one. The machine that posts a batch says
how it is divided, since that depends on its memory, too. A pack is made anew for each training.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stages.common.errors import UserError
from stages.common.params import Params
from stages.runtime.audit import audit_process
from stages.runtime.installed import check_installed
from stages.runtime.snapshot import Snapshot, find_input_changes
from stages.tools.search.database import Database
from stages.tools.search.posts import find_done, find_posted, write_done
from stages.tune.params import TuneParams
from stages.tune.training.batch import Trainer, make_trainer, read_start
from stages.tune.training.told import Batch, CannotPackError, train_part


@dataclass(frozen=True)
class Worker:
    """One machine at work at a study.

    `check` raises UserError where its inputs are no longer those that it began with. `said` are
    the lines that were printed once, `declined` has the parts that it can't train, and why.
    """

    database: Database
    study: str
    section: TuneParams
    trainer: Trainer
    check: Callable[[], None]
    said: set[str] = field(default_factory=set)
    declined: dict[str, str] = field(default_factory=dict)


def make_worker(
    database: Database, study: str, params: Params, check: Callable[[], None]
) -> Worker:
    """A worker that has loaded the data of this folder. Raises UserError as the stage does."""
    section = params.section("tune", TuneParams)
    start = read_start(params, section.epochs)
    trainer = make_trainer(start, keep_scores=section.keep_scores > 0)
    return Worker(database, study, section, trainer, check)


def name_search(study: str) -> str:
    """The study's name with a digest of this folder's code: others speak another language."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
    return f"{study}-{digest.hexdigest()[:8]}"


def check_inputs(snapshot: Snapshot) -> None:
    """Stop where code, parameters, data or libraries are not those of `snapshot`.

    And where the process has opened what the stage does not declare.
    """
    audit_process().stop_if_refused()
    check_installed()
    changes = find_input_changes(snapshot)
    if changes:
        what = "what this search depends on was changed while it ran:"
        raise UserError("\n  ".join([what, *(change.message for change in changes)]))


def work_once(worker: Worker, batch: Batch, say: Callable[[str], None] = lambda _: None) -> bool:
    """Train the first part that nobody has trained or is training; return whether there was one."""
    database, study = worker.database, worker.study
    done = find_done(database, study, batch)
    for number, places in enumerate(batch.parts):
        lock = f"{study}/{batch.name}/{number}"
        if number in done or lock in worker.declined or not database.try_lock(lock):
            continue
        try:
            # It may have been written down between the look and the lock, and the search may have
            # ended with it.
            if number in find_done(database, study, batch) or not is_open(worker, batch):
                continue
            say(f"trains {name_trials(batch, number)}")
            told = train_part(worker.trainer, worker.section, batch, places)
            worker.check()
            write_done(database, study, batch, number, told)
        except CannotPackError as error:
            worker.declined[lock] = f"trials {name_trials(batch, number)}: {error}"
            say(f"leaves to other machines {worker.declined[lock]}")
            continue
        finally:
            database.unlock(lock)
        return True
    return False


def is_open(worker: Worker, batch: Batch) -> bool:
    """Check whether the batch is still posted: it is not, once the search has ended."""
    return find_posted(worker.database, worker.study) == batch.name


def name_trials(batch: Batch, *parts: int) -> str:
    """The trials of some parts as the stage counts them, from 1 on."""
    return ", ".join(str(batch.first + place + 1) for part in parts for place in batch.parts[part])
