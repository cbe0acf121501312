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

import torch

from stages.common.errors import UserError
from stages.common.user_code import own_errors
from stages.runtime.audit import audit_process
from stages.runtime.environment import check_imports
from stages.runtime.outside import check_zoo
from stages.runtime.snapshot import read_snapshot
from stages.training.device.copied_process import (
    TO_GROUPS,
    end_with_parent,
    hold_signals,
    let_signals_in,
)
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
    """A copy of this process that trains what it is told to; `add_copy` makes it. Final."""

    def __init__(self, train: TrainParts) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        arguments = (train, self.connection, theirs, os.getpid())
        self._process: ForkProcess = multiprocessing.get_context("fork").Process(
            target=_work, args=arguments
        )
        self._trained = ""
        with theirs, warnings.catch_warnings():
            # From 3.12 on Python warns of other threads: those of torch wait, and a copy that
            # computes with one thread never asks for them.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()

    def begin(self, parts: Sequence[int], work: str) -> None:
        """Have it train the parts of these numbers; `work` are they in words."""
        self._trained = work
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
            # So the system ends a process when memory is full.
            hint = f"\n  {HINT}" if code == -signal.SIGKILL else ""
            raise UserError(f"{_describe_end(code)} that trained {self._trained}{hint}") from None
        if isinstance(told, Exception):
            raise told
        return told

    def kill(self) -> None:
        """End it, whatever it does, and don't wait for that."""
        self._process.kill()

    def join(self) -> None:
        """Wait until it has ended."""
        self._process.join()
        self.connection.close()

    def _send(self, message: object) -> None:
        # One that was lost is noticed where it is listened to.
        with suppress(OSError):
            self.connection.send(message)


def add_copy(copies: list[Copy], train: TrainParts) -> Copy:
    """Make a copy that trains with `train`, and append it to `copies`.

    Raises UserError where the system makes no other process.
    """
    # A Ctrl-C in between would leave a copy that nobody ends.
    with hold_signals():
        try:
            copies.append(Copy(train))
        except OSError as error:
            message = f"no other process can be had to train trials in: {error.strerror or error}"
            raise UserError(f"{message}\n  {HINT}") from error
    return copies[-1]


def end_all(copies: Sequence[Copy]) -> None:
    """End all copies, and wait until they have ended."""
    # A second Ctrl-C finds none of them at work.
    with hold_signals():
        for copy in copies:
            copy.kill()
        for copy in copies:
            copy.join()


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
    # Ctrl-C and SIGTERM reach the stage as well, which ends its copies.
    for number in TO_GROUPS:
        signal.signal(number, signal.SIG_IGN)
    let_signals_in()
    # The threads that torch had are not in the copy: what asks for them waits for ever.
    torch.set_num_threads(1)
    # To look through what is common for garbage would be to copy all of it.
    gc.freeze()
    loaded = set(sys.modules)

    def exchange(epoch: int, values: Mapping[int, float]) -> set[int]:
        _tell(connection, Reached(epoch, values))
        ended: set[int] = connection.recv()
        return ended

    # The other end is closed: nobody waits for results any more.
    with suppress(EOFError, ConnectionError):
        while True:
            parts = connection.recv()
            told: Results | Exception
            try:
                with own_errors(""):
                    told = train(parts, exchange)
                _check(loaded)
            except Exception as error:
                told = _find_cause(error)
            _tell(connection, told)


def _tell(connection: Connection, message: Reached | Results | Exception) -> None:
    # What a model prints stands before the epoch's end; a copy that is killed prints no more.
    if sys.stdout is not None:
        sys.stdout.flush()
    connection.send(message)


def _check(loaded: set[str]) -> None:
    """Stop where this copy has opened or imported what the stage does not declare."""
    audit_process().stop_if_refused()
    # What it alone has imported the stage does not see. Started by hand there is no stage.
    if sys.modules.keys() - loaded and read_snapshot("tune") is not None:
        check_imports("tune")
        check_zoo()
        loaded |= sys.modules.keys()


def _find_cause(error: Exception) -> Exception:
    """The error that the stage is told: what was refused here, else `error`, fit to be sent."""
    try:
        # A library may have made another error of it.
        audit_process().stop_if_refused()
    except UserError as refused:
        return refused
    # A full disk and full memory the stage explains.
    plain = isinstance(error, OSError | MemoryError) and type(error).__module__ == "builtins"
    if isinstance(error, UserError) or plain:
        return error
    # Not every error can be sent.
    told = RuntimeError(f"in a process that trains trials: {type(error).__name__}: {error}")
    told.add_note("".join(traceback.format_exception(error)))
    return told
