"""SIGTERM and Ctrl-C in a training: they wait for the end of a step."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# For a step to end. Less than torchrun waits for its processes (30 s).
STOP_SECONDS = 25.0


INTERRUPTED = "\ninterrupted: it stops after this step; Ctrl-C again stops it at once\n"


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """A function that gives the signal to stop that has come, SIGTERM or Ctrl-C; 0: none has.

    In here they wait for the end of a step. Where none ends for `STOP_SECONDS`, and at a second
    Ctrl-C, they end the process as they would have without.
    """
    received: list[int] = []
    terminate, interrupt, alarm = map(
        signal.getsignal, (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    )

    def note(number: int, _frame: FrameType | None) -> None:
        if received:
            return
        received.append(number)
        if number == signal.SIGINT:
            # Not `print`: the training may be in the middle of one.
            os.write(2, INTERRUPTED.encode())
            signal.signal(signal.SIGALRM, interrupt)
        signal.signal(signal.SIGINT, interrupt)
        signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)

    signal.signal(signal.SIGTERM, note)
    # A shell has what it starts in the background ignore it, the stage its replicas.
    if interrupt != signal.SIG_IGN:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: received[0] if received else 0
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, interrupt)
        if signal.SIGINT in received:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
    if signal.SIGINT in received:
        # No step has come after it.
        signal.raise_signal(signal.SIGINT)
