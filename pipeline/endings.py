"""Ends a service with all that it has started, gently first, and surely."""

import os
import time
from contextlib import suppress

import psutil

from pipeline.services import MARK, POLL_SECONDS, Service, find_process, mark_of
from stages.common.errors import UserError

KILL_ROUNDS = 25
# With no child left to end, a service only waits for somebody: a worker for a server that is gone.
ALONE_SECONDS = 10.0
# Shares of the grace period after which a service is told although it still has children, and
# a process although its parent's end should have told it.
LEADER_SHARE, ORPHAN_SHARE = 0.8, 0.1


def end(name: str, record: Service | None, grace_seconds: float) -> None:
    """End a service with all its children: SIGTERM, a bounded wait, SIGKILL.

    A worker's runs are told before it, so that they and it can report their end. Who has lost
    its parent is told only a while later: it may be about to end its own children in order (a
    run keeps a leash on its stages).
    Raises UserError if something survives.
    """
    known: set[psutil.Process] = set()
    told: set[psutil.Process] = set()
    begin = busy = time.monotonic()
    leader = find_process(record) if record is not None else None
    while running := _family(name, record, known):
        now = time.monotonic()
        seconds = now - begin
        if running != {leader}:
            busy = now
        if seconds > grace_seconds or now - busy > ALONE_SECONDS:
            break
        for process in running - told:
            with suppress(psutil.Error):
                if _is_due(process, running, leader, seconds / grace_seconds):
                    process.terminate()
                    told.add(process)
        time.sleep(POLL_SECONDS)
    for _ in range(KILL_ROUNDS):
        running = _family(name, record, known)
        if not running:
            return
        for process in running:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(POLL_SECONDS)
    pids_left = ", ".join(str(process.pid) for process in running)
    raise UserError(f"{name} does not end, not even when killed: process {pids_left}")


def _is_due(
    process: psutil.Process,
    running: set[psutil.Process],
    leader: psutil.Process | None,
    elapsed: float,
) -> bool:
    """Whether it is time to tell a process to end; `elapsed` is a share of the grace period."""
    if process == leader:
        return not process.children() or elapsed > LEADER_SHARE
    parent = process.ppid()
    if leader is not None and parent == leader.pid:
        return True
    is_orphan = parent not in {other.pid for other in running}
    return is_orphan and (leader is None or elapsed > ORPHAN_SHARE)


def _family(name: str, record: Service | None, known: set[psutil.Process]) -> set[psutil.Process]:
    """The service's running processes: by its record, by its mark, and all their children.

    `known` remembers those once seen, whose parent may be gone by now.
    """
    leader = find_process(record) if record is not None else None
    found = {*known, *marked(name), *([leader] if leader is not None else [])}
    for process in tuple(found):
        with suppress(psutil.Error):
            found.update(process.children(recursive=True))
    known.update(found)
    running = set()
    for process in found:
        with suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                running.add(process)
    return running


def marked(name: str) -> list[psutil.Process]:
    """The running processes that carry the service's mark of this folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark_of(name) and process.pid != os.getpid():
                found.append(process)
    return found
