"""When a training keeps a checkpoint: every now and then, and when it is told to stop."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from stages.train.checkpoint import copied, pack, pack_rank, write_checkpoint
from stages.train.machine import World
from stages.train.parts import drop_older, make_mark, write_part
from stages.train.sharded import is_sharded
from stages.train.state import State

# EX_TEMPFAIL: told to stop, and able to go on from a checkpoint.
PREEMPTED = 75
# Not more often than this: a copy of the state takes time, and the disk is not ours alone.
SECONDS_BETWEEN = 10.0
# Between the questions that the processes of a training ask each other.
SECONDS_BETWEEN_QUESTIONS = 0.25
MAX_STEPS_BETWEEN = 1000
# Less than torchrun waits for its processes (30 s).
STOP_SECONDS = 25.0


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGTERM has come: in here it waits for the end of a step.

    Where no step ends for `STOP_SECONDS`, it ends the process as it would have without.
    """
    told: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if not told:
            signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)
        told.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: bool(told)
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass
class Saver:
    """Called after every step: writes a checkpoint when the last one is some seconds old.

    Told to stop (SIGTERM), it writes one at once and ends the process with `PREEMPTED`. Several
    processes do both at the same step: every now and then they ask each other, which takes no
    part in what they compute. The first one writes for all, or each its part of divided weights.
    A copy of the state is made between two steps; the disk is written
    beside the steps that follow.
    """

    folder: Path | None
    world: World
    told_to_stop: Callable[[], bool]
    seconds_between: float = field(
        default_factory=lambda: float(os.environ.get("REPRISE_CHECKPOINT_SECONDS", SECONDS_BETWEEN))
    )
    saved_at: float = field(default_factory=time.monotonic)
    asked_at: float = field(default_factory=time.monotonic)
    steps_until_asked: int = 1
    steps_between: int = 1
    writing: "Future[None] | None" = None
    writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def __call__(self, state: State) -> None:
        """Write one, if it is time; whole or not at all."""
        stop, due = self.told_to_stop(), self._is_due()
        if self.world.size > 1:
            self.steps_until_asked -= 1
            if self.steps_until_asked > 0:
                return
            stop, due = self._ask_all(stop=stop, due=due)
        if not (stop or due):
            return
        if self.folder is not None:
            self._save(state, self.folder)
        if stop:
            self.finish()
            self.world.wait()
            sys.exit(PREEMPTED)

    def finish(self) -> None:
        """Wait for what is being written. What the disk refuses is said, and ends no training."""
        if self.writing is None:
            return
        try:
            self.writing.result()
        except OSError as error:
            # Only the first process of a machine has an output to print to.
            file = sys.stdout if self.world.leads else sys.stderr
            reason = error.strerror or error
            print(f"no checkpoint could be written: {reason}", file=file, flush=True)
        self.writing = None

    def _is_due(self) -> bool:
        return self.folder is not None and time.monotonic() - self.saved_at >= self.seconds_between

    def _ask_all(self, *, stop: bool, due: bool) -> tuple[bool, bool]:
        """Whether any process was told to stop, and whether the first finds a checkpoint due."""
        now, first = time.monotonic(), self.world.rank == 0
        seconds = max(now - self.asked_at, 1e-6)
        planned = self.steps_between * SECONDS_BETWEEN_QUESTIONS / seconds
        steps = min(MAX_STEPS_BETWEEN, max(1, round(planned)))
        answer = self.world.largest([stop, due and first, steps if first else 0])
        self.asked_at = time.monotonic()
        self.steps_between = self.steps_until_asked = answer[2]
        return bool(answer[0]), bool(answer[1])

    def _save(self, state: State, folder: Path) -> None:
        ranks = self.world.gather(pack_rank(state))
        self.saved_at = time.monotonic()
        in_parts = is_sharded(state.model)
        if not (self.world.leads or in_parts):
            return
        self.finish()
        write: Callable[[Path, tuple[int, int], dict[str, Any]], None] = write_checkpoint
        if in_parts:
            drop_older(folder, self.world)
            mark = self.world.share(make_mark)
            write = partial(write_part, mark=mark, world=self.world)
        content = copied(pack(state, ranks))
        position = (len(state.result.history), state.sums.num_steps)
        self.writing = self.writer.submit(write, folder, position, content)
