"""Ends a service with all that it has started, gently first, and surely."""

from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import psutil

from pipeline.common.processes import end_all, find_marked, is_alive
from pipeline.server.services import MARK, ServiceProcess, find_process, mark_of
from stages.common.errors import UserError

# With no child left to end, a service only waits for somebody: a worker for a server that is gone.
ALONE_SECONDS = 10.0
# Shares of the grace period after which a service is told although it still has children, and
# a process although its parent's end should have told it.
LEADER_SHARE, ORPHAN_SHARE = 0.8, 0.1


def end(name: str, record: ServiceProcess | None, grace_seconds: float) -> None:
    """End a service with all its children: SIGTERM, a bounded wait, SIGKILL.

    Raises UserError if something survives.
    """
    leader = find_process(record) if record is not None else None
    known: set[psutil.Process] = set()
    family = partial(_family, name, record, known)
    left = end_all(family, grace_seconds, _Turns(leader, grace_seconds).choose)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise UserError(f"{name} does not end, not even when killed: process {pids}")


def _is_due(
    process: psutil.Process,
    running: set[psutil.Process],
    leader: psutil.Process | None,
    elapsed: float,
) -> bool:
    """Check whether it is time to tell a process to end.

    `elapsed` is a share of the grace period.
    """
    if process == leader:
        return not process.children() or elapsed > LEADER_SHARE
    parent = process.ppid()
    if leader is not None and parent == leader.pid:
        return True
    is_orphan = parent not in {other.pid for other in running}
    return is_orphan and (leader is None or elapsed > ORPHAN_SHARE)


def _family(
    name: str, record: ServiceProcess | None, known: set[psutil.Process]
) -> set[psutil.Process]:
    """The service's running processes: by its record, by its mark, and all their children.

    `known` remembers those once seen, whose parent may be gone by now.
    """
    leader = find_process(record) if record is not None else None
    found = {*known, *marked(name), *([leader] if leader is not None else [])}
    for process in tuple(found):
        with suppress(psutil.Error):
            found.update(process.children(recursive=True))
    known.update(found)
    return {process for process in found if is_alive(process)}


def marked(name: str) -> set[psutil.Process]:
    """The running processes that carry the service's mark of this folder."""
    return find_marked({MARK: mark_of(name)})


@dataclass
class _Turns:
    """Whom to tell when.

    A worker's runs are told before it, so that they and it can report their end. Who has lost
    its parent is told only a while later: it may be about to end its own children in order (a
    run keeps a supervisor on its stages).
    """

    leader: psutil.Process | None
    grace_seconds: float
    # When the service was last seen with a child.
    busy: float = 0.0

    def choose(self, running: set[psutil.Process], seconds: float) -> set[psutil.Process] | None:
        """The processes whose turn it is after `seconds`; None when only the service is left."""
        if running != {self.leader}:
            self.busy = seconds
        if seconds - self.busy > ALONE_SECONDS:
            return None
        due = set()
        for process in running:
            with suppress(psutil.Error):
                if _is_due(process, running, self.leader, seconds / self.grace_seconds):
                    due.add(process)
        return due
