"""Has a stage run in a work pool: `python -m pipeline.elsewhere.send STAGE POOL`.

It takes the place of `dvc repro` under the supervisor of a run, prints what the stage prints
there, and ends with 0 when the result has been taken. SIGTERM cancels the run in the pool.
Killed, it leaves that running, and the next sender of the same state finds it, or its result.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipeline.common.dvc_repo import open_repo
from pipeline.common.git import hide_secrets
from pipeline.common.processes import RUN_VARIABLE
from pipeline.elsewhere.data import missing_inputs, pull
from pipeline.elsewhere.inputs import name_clone, name_run, read_inputs
from pipeline.elsewhere.names import not_run
from pipeline.elsewhere.sending import Sending, Stopped
from pipeline.elsewhere.snapshot import make_snapshot
from pipeline.plan.forecast import RESTORABLE
from pipeline.plan.way import check_remote, find_origin
from pipeline.run.supervisor import ENDED
from stages.common.errors import UserError, format_problem


def main() -> None:
    """Send the stage that the arguments name; a mistake is one screen of text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage")
    parser.add_argument("pool")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        sys.exit(send(given.stage, given.pool, force=given.force, workers=given.workers))
    except Stopped:
        sys.exit(ENDED)
    except UserError as error:
        print(f"\n{not_run(given.stage, given.pool)}")
        for problem in error.problems:
            print(hide_secrets(format_problem(problem)))
        for note in getattr(error, "__notes__", []):
            print(note)
        sys.exit(1)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def send(stage: str, pool: str, *, force: bool, workers: int) -> int:
    """Run `stage` in the pool and take its result; the exit code. Raises UserError."""
    folder = Path.cwd()
    with open_repo(wait=True) as repo:
        inputs = read_inputs(repo, stage)
        if inputs.state == RESTORABLE and not force:
            pull(repo, missing_inputs(repo, stage))
            _restore_here(stage)
        origin = find_origin(folder)
        check_remote(folder)
        commit = make_snapshot(repo, inputs.plain, inputs.cached, f"{stage}, sent to run elsewhere")
        run = os.environ.get(RUN_VARIABLE, "") if force or inputs.stage.always_changed else ""
        key = name_run(inputs, commit, origin, pool, f"{name_clone(folder)} {run}")
        return Sending(repo, inputs, commit, key, pool, say, force=force, workers=workers).run()


def _restore_here(stage: str) -> NoReturn:
    """Let DVC bring the outputs back from its cache, in place of this process."""
    dvc = str(Path(sys.executable).parent / "dvc")
    os.execv(dvc, [dvc, "--wait-for-lock", "repro", "--single-item", stage])  # noqa: S606


if __name__ == "__main__":
    main()
