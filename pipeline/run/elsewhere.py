"""A stage in a work pool, as the run that sends it sees it: one more command under a supervisor."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.common.programs import python
from pipeline.plan.remote_outputs import read_remote_outputs
from pipeline.run.execute import StageEnd, Supervisors, run_command


def run_elsewhere(
    name: str,
    pool: str,
    supervisors: Supervisors,
    say: Callable[[str], None],
    *,
    force: bool,
    workers: int,
    timeout_seconds: float | None,
) -> StageEnd:
    """Run one stage in a work pool to its end, a search with `workers`; `say` gets each line."""
    start = time.monotonic()
    limit = threading.TIMEOUT_MAX if timeout_seconds is None else timeout_seconds
    command = [*python("pipeline.elsewhere.send"), name, pool, "--workers", str(workers)]
    command += ["--force"] if force else []
    end = run_command(name, command, supervisors, say, limit)
    return _explain(replace(end, seconds=time.monotonic() - start), limit)


def fetch_inputs(
    name: str,
    supervisors: Supervisors,
    say: Callable[[str], None],
    timeout_seconds: float | None,
) -> StageEnd | None:
    """Bring inputs here that only DVC's remote has; how that ended, None: none may be missing."""
    remote = read_remote_outputs()
    if all(Path(path).exists() for path in remote):
        return None
    limit = threading.TIMEOUT_MAX if timeout_seconds is None else timeout_seconds
    command = [*python("pipeline.elsewhere.fetch"), name]
    return _explain(run_command(name, command, supervisors, say, limit), limit)


def _explain(end: StageEnd, limit: float) -> StageEnd:
    if not end.timed_out:
        return end
    return replace(end, reason=f"no end after {limit:g} s (meta.timeout_seconds)")
