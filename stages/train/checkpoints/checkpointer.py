"""Decides when a checkpoint is written: every now and then, and at a signal to stop."""

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.train.checkpoints.checkpoint import (
    copied,
    rank_state_dict,
    state_dict,
    write_checkpoint,
)
from stages.train.checkpoints.sharded_checkpoint import drop_older, make_mark, write_part
from stages.training.device.distributed import World
from stages.training.device.fsdp import is_sharded
from stages.training.state import State

# EX_TEMPFAIL: told to stop, and able to resume from a checkpoint.
PREEMPTED = 75
# Not more often than this: a copy of the state takes time, and the disk has other users.
SECONDS_BETWEEN = 10.0
ENV_VAR = "REPRISE_CHECKPOINT_SECONDS"
# Between the questions that the processes of a training ask each other.
SECONDS_BETWEEN_QUESTIONS = 0.25
MAX_STEPS_BETWEEN = 1000


def seconds_between() -> float:
    """The age of the last checkpoint at which the next is written.

    Raises UserError for what is not a number.
    """
    value = os.environ.get(ENV_VAR, str(SECONDS_BETWEEN))
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise UserError(f"{ENV_VAR} is '{value}': it must be a number of seconds, 0 or more")
    return seconds


@dataclass
class Checkpointer:
    """A callback after every step: writes a checkpoint when the last one is some seconds old.

    Told to stop, it writes one at once and ends the process: with `PREEMPTED`, or alone after a
    Ctrl-C as a Ctrl-C does. Several processes do both at the same step: every now and then they
    ask each other, which takes no part in what they compute. The first one writes for all, or
    each its part of sharded weights. A copy of the state is made between two steps; the disk is
    written beside the steps that follow. `state` is a `State`, or what `content_of` takes.
    """

    folder: Path | None
    world: World
    stop_signal: Callable[[], int]
    seconds_between: float = field(default_factory=seconds_between)
    saved_at: float = field(default_factory=time.monotonic)
    asked_at: float = field(default_factory=time.monotonic)
    steps_until_asked: int = 1
    steps_between: int = 1
    writing: "Future[None] | None" = None
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    # The content of another kind of state, such as that of a pack; None: it is that of a training.
    content_of: Callable[[Any], dict[str, Any]] | None = None

    def __call__(self, state: Any) -> None:
        """Write one, if it is time; whole or not at all."""
        stop, due = self.stop_signal(), self._is_due()
        if self.world.size > 1:
            self.steps_until_asked -= 1
            if self.steps_until_asked > 0:
                return
            stop, due = self._ask_all(stop, due=due)
        if not (stop or due):
            return
        if stop:
            # A step has ended: from here on only the disk is waited for, which may take longer than
            # `STOP_SECONDS`. Whoever sent the signal decides how long (torchrun: 30 s in all).
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self.folder is not None:
            self._save(state, self.folder)
        if stop:
            self.finish()
            self.world.barrier()
            if stop == signal.SIGINT and self.world.size == 1:
                raise KeyboardInterrupt
            sys.exit(PREEMPTED)

    def finish(self) -> None:
        """Wait for what is being written. What the disk refuses is said, and ends no training."""
        if self.writing is None:
            return
        try:
            self.writing.result()
        except OSError as error:
            # Only the first process of a machine has an output to print to.
            file = sys.stdout if self.world.is_local_main_process else sys.stderr
            reason = error.strerror or error
            print(f"no checkpoint could be written: {reason}", file=file, flush=True)
        self.writing = None

    def _is_due(self) -> bool:
        return self.folder is not None and time.monotonic() - self.saved_at >= self.seconds_between

    def _ask_all(self, stop: int, *, due: bool) -> tuple[int, bool]:
        """The signal that told any process to stop, and whether the first finds one due."""
        now, first = time.monotonic(), self.world.rank == 0
        seconds = max(now - self.asked_at, 1e-6)
        planned = self.steps_between * SECONDS_BETWEEN_QUESTIONS / seconds
        steps = min(MAX_STEPS_BETWEEN, max(1, round(planned)))
        answer = self.world.all_reduce_max([stop, due and first, steps if first else 0])
        self.asked_at = time.monotonic()
        self.steps_between = self.steps_until_asked = answer[2]
        return answer[0], bool(answer[1])

    def _save(self, state: Any, folder: Path) -> None:
        if self.content_of is None:
            self._save_training(state, folder)
            return
        self.saved_at = time.monotonic()
        self.finish()
        content = copied(self.content_of(state))
        epochs, steps = content["position"]
        self.writing = self.writer.submit(write_checkpoint, folder, (epochs, steps), content)

    def _save_training(self, state: State, folder: Path) -> None:
        ranks = self.world.gather(rank_state_dict(state))
        self.saved_at = time.monotonic()
        in_parts = is_sharded(state.model)
        if not (self.world.is_local_main_process or in_parts):
            return
        self.finish()
        write: Callable[[Path, tuple[int, int], dict[str, Any]], None] = write_checkpoint
        if in_parts:
            drop_older(folder, self.world)
            mark = self.world.broadcast_object(make_mark)
            write = partial(write_part, mark=mark, world=self.world)
        content = copied(state_dict(state, ranks))
        position = (len(state.result.history), state.totals.num_steps)
        self.writing = self.writer.submit(write, folder, position, content)
