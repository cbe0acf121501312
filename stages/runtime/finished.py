"""Work that a stage has finished, and that can't become its outputs: an input was edited meanwhile.

It lies under `.reprise/finished/<stage>/<name>`, where the name is that of the inputs that it was
made of. A stage that begins with these takes it from there, once, and has nothing to do.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stages.common.errors import UserError
from stages.runtime.snapshot import (
    MAX_SHOWN,
    InputChange,
    Snapshot,
    find_input_changes,
    name_snapshot,
)

FINISHED = Path(".reprise/finished")
# Results of the same inputs from other devices or thread counts differ in their last bits.
MACHINE = (
    "REPRISE_DEVICE",
    "REPRISE_THREADS",
    "PET_NPROC_PER_NODE",
    "PET_NNODES",
)


def stop_if_changed(snapshot: Snapshot, work: Path) -> None:
    """Raise UserError when an input is no longer what it was; the finished work is set aside.

    Where a file may have been read in part before it changed, the work is of no use to anybody.
    """
    changes = find_input_changes(snapshot)
    if not changes:
        return
    lines = _tell(changes)
    if any(change.mixed for change in changes):
        lines.append("the result may have read some of either, so it is thrown away")
    else:
        _set_aside(snapshot, work)
        lines.append(
            "the result of what stood there is kept: put that back, and 'dvc repro' takes it "
            "without running again"
        )
    raise UserError("\n".join(lines))


@contextmanager
def changes_explain_errors(snapshot: Snapshot) -> Iterator[None]:
    """Tell first what was changed, where work ends in an error that may have come of it.

    A file that is replaced while it is read may be half of either. Raises UserError with the
    changes, then what the work said; without changes the error stays what it is.
    """
    try:
        yield
    except Exception as error:
        # Of objects in storage the stage has read what it fetched, before this.
        changes = find_input_changes(snapshot, objects=False)
        if not changes:
            raise
        reason = str(error).split("\n")[0]
        said = error.problems if isinstance(error, UserError) else [f"it ended in: {reason}"]
        raise UserError("\n".join(_tell(changes)), *said) from error


def _tell(changes: Sequence[InputChange]) -> list[str]:
    lines = ["what this stage depends on was changed while it ran:"]
    lines += [f"  {change.message}" for change in changes[:MAX_SHOWN]]
    if len(changes) > MAX_SHOWN:
        lines.append(f"  and {len(changes) - MAX_SHOWN} more")
    lines.append("nothing is recorded for what stands there now: 'dvc repro' runs with that")
    return lines


def take_finished(snapshot: Snapshot, work: Path) -> bool:
    """Move what was finished with these very inputs into `work`; tell whether there was any."""
    home = FINISHED / snapshot.stage
    if not home.is_dir():
        return False
    kept = home / _name(snapshot)
    if not kept.is_dir():
        return False
    for path in kept.iterdir():
        path.rename(work / path.name)
    shutil.rmtree(home)
    print(
        f"{snapshot.stage}: an earlier run has finished this, and could not record it because an "
        "input was edited meanwhile; its result is taken"
    )
    return True


def _set_aside(snapshot: Snapshot, work: Path) -> None:
    home = FINISHED / snapshot.stage
    # One a stage: what was edited twice is not going back to the first.
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    # Moved whole under a name that nobody looks for, then renamed: a kill leaves no half of it.
    writing = home / ".writing"
    writing.mkdir()
    for path in sorted(work.iterdir()):
        path.rename(writing / path.name)
    writing.rename(home / _name(snapshot))


def _name(snapshot: Snapshot) -> str:
    machine = "-".join(os.environ.get(name, "") for name in MACHINE)
    return f"{name_snapshot(snapshot)}-{machine}" if machine.strip("-") else name_snapshot(snapshot)
