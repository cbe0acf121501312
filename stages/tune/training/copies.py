"""A copy of this process (`fork`) that trains parts of a batch, and both ends of the pipe to it.

A copy has the libraries and the data, and is there in milliseconds. It trains with one thread, as
this process would, and so comes to the same bits. After each epoch it tells the values of its
trials, and hears which of them end. It ends with this process, however that ends.
"""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from stages.common.errors import UserError
from stages.common.user_code import own_errors
from stages.runtime.audit import audit_process
from stages.runtime.environment import check_imports
from stages.runtime.snapshot import read_snapshot
from stages.training.device.copied_process import end_with_parent, hold_signals, let_signals_in
from stages.tune.trials import OnEpochEnd, TrialResult

Results = dict[int, TrialResult]
# Trains the parts of these numbers in step; returns the results of their trials, by place.
TrainParts = Callable[[Sequence[int], OnEpochEnd], Results]
HINT = "REPRISE_AT_ONCE=1 trains one after the other, which takes less memory"


@dataclass(frozen=True)
class Reached:
    """The values of a copy's trials that have reached the end of an epoch, by place."""

    epoch: int
    values: Mapping[int, float]


class Copy:
    """A copy of this process that trains what it is told to. Final."""

    def __init__(self, train: TrainParts) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        arguments = (train, self.connection, theirs, os.getpid())
        self._process: ForkProcess = multiprocessing.get_context("fork").Process(
            target=_work, args=arguments
        )
        self._work = ""
        with hold_signals(), warnings.catch_warnings():
            # From 3.12 on Python warns of other threads: those of torch wait, and a copy that
            # computes with one thread never asks for them.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()

    def begin(self, parts: Sequence[int], work: str) -> None:
        """Have it train the parts of these numbers; `work` are they in words."""
        self._work = work
        self._send(list(parts))

    def go_on(self, ended: Collection[int]) -> None:
        """Tell it which trials end, by place; the others train for an epoch more."""
        self._send(set(ended))

    def hear(self) -> Reached | Results:
        """Wait for what it tells next: values after an epoch, or results when all have ended.

        Raises what it has met, and UserError when it was lost.
        """
        try:
            told: Reached | Results | Exception = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode
            raise UserError(f"{_describe_end(code)} that trained {self._work}\n  {HINT}") from None
        if isinstance(told, Exception):
            raise told
        return told

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self.connection.close()

    def _send(self, message: object) -> None:
        # One that was lost is noticed where it is listened to.
        with suppress(OSError):
            self.connection.send(message)


def _describe_end(code: int | None) -> str:
    what = f"exit code {code}"
    if code is not None and code < 0:
        what = f"{signal.Signals(-code).name}, by the system or by hand"
    return f"the process was ended ({what})"


def _work(train: TrainParts, parents_end: Connection, connection: Connection, parent: int) -> None:
    """Train as the copy that this process is, until it is ended."""
    end_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    parents_end.close()
    # Ctrl-C reaches the stage as well, which ends its copies.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    let_signals_in()
    # To look through what is common for garbage would be to copy all of it.
    gc.freeze()
    loaded = set(sys.modules)

    def exchange(epoch: int, values: Mapping[int, float]) -> set[int]:
        connection.send(Reached(epoch, values))
        ended: set[int] = connection.recv()
        return ended

    while True:
        parts = connection.recv()
        told: Results | Exception
        try:
            with own_errors(""):
                told = train(parts, exchange)
            _check(loaded)
        except UserError as error:
            told = error
        except Exception as error:
            # Not every error can be sent.
            told = RuntimeError(f"in a process that trains trials: {type(error).__name__}: {error}")
            told.add_note(traceback.format_exc())
        connection.send(told)


def _check(loaded: set[str]) -> None:
    """Stop where this copy has opened or imported what the stage does not declare."""
    audit_process().stop_if_refused()
    # What it alone has imported the stage does not see. Started by hand there is no stage.
    if sys.modules.keys() - loaded and read_snapshot("tune") is not None:
        check_imports("tune")
        loaded |= sys.modules.keys()
