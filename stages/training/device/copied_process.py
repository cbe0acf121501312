"""A copy of a process that trains (`fork`): what it does first, and what waits until then."""

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# These often come to all processes of a group.
TO_GROUPS = (signal.SIGINT, signal.SIGTERM)
# Of prctl: the signal that comes when the thread that started this process ends, here the main one.
PR_SET_PDEATHSIG = 1


@contextmanager
def hold_signals() -> Iterator[None]:
    """Hold signals to the group back while a copy is made; it lets them in when it is ready."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TO_GROUPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_signals_in() -> None:
    """Let in what was held back when this copy was made."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TO_GROUPS)


def end_with_parent() -> None:
    """Be killed when the process ends that this one is a copy of, however it ends (on Linux).

    Else the copy would hold its locks and the pipes to its loggers, and train for nobody.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
