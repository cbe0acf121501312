"""Batches that several machines train together: the side of the machine that runs the stage.

A process beside the stage speaks with the database, so that the stage needs no driver, and reads
nothing from outside: it hands a batch over, and hears how each trial has gone, epoch by epoch.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.common.config import Overrides
from stages.common.errors import Problem, UserError
from stages.training.device.device import device_kind
from stages.tune.journal import read_told
from stages.tune.pruners import IN_STEP
from stages.tune.training.told import replay
from stages.tune.trials import OnEpochEnd, TrainTrials, TrialResult

VARIABLE = "REPRISE_STUDY"
HOST = "stages.tools.search.host"


def is_shared() -> bool:
    """Check whether the environment names a database where several machines meet."""
    return bool(os.environ.get(VARIABLE))


def check_pruner(pruner: str) -> None:
    """Stop at a pruner that several machines can't have. Raises UserError."""
    if is_shared() and pruner in IN_STEP:
        message = (
            f"several machines ({VARIABLE}) can't compare the trials of a batch epoch by epoch"
        )
        raise UserError(Problem(message, "tune.pruner", pruner, ("none", "median")))


def name_study(fingerprint: str) -> str:
    """The name under which machines find each other: one for the same code, data and device."""
    return f"{fingerprint}-{device_kind()}"


@contextmanager
def share_batches(study: str, journal: Path) -> Iterator[TrainTrials]:
    """A function that has a batch trained by all who work at the study, this machine among them.

    What has been told to the sampler is read from `journal`. Raises UserError as the process
    beside the stage does.
    """
    answers, answer = os.pipe()
    command = [sys.executable, "-m", HOST, study, str(answer)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(answer,), text=True)
    os.close(answer)
    assert process.stdin is not None
    with os.fdopen(answers, encoding="utf-8") as lines, process:

        def ask(message: Mapping[str, Any]) -> dict[str, Any]:
            assert process.stdin is not None
            # Where that process has ended, there is no answer either.
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
            return _read_answer(lines.readline())

        def train_trials(tried: Sequence[Overrides], on_epoch_end: OnEpochEnd) -> list[TrialResult]:
            before = [asdict(trial) | {"memory": {}} for trial in read_told(journal)]
            batch = {"first": len(before), "tried": list(tried), "before": before}
            return replay(ask({"batch": batch})["parts"], tried, on_epoch_end)

        try:
            # From here on it is this machine that runs the search.
            ask({})
            yield train_trials
            ask({"end": True})
        finally:
            # It ends when nobody can ask it any more.
            with suppress(BrokenPipeError):
                process.stdin.close()


def _read_answer(line: str) -> dict[str, Any]:
    if not line.endswith("\n"):
        raise UserError(f"the process that shares the search ({VARIABLE}) has ended; see above")
    answer: dict[str, Any] = json.loads(line)
    if problems := answer.get("problems"):
        raise UserError(*(Problem(**{**p, "allowed": tuple(p["allowed"])}) for p in problems))
    return answer
