"""A copy of a process that trains (`fork`): what it does first, and what waits until then."""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# These often come to all processes of a group.
TO_GROUPS = (signal.SIGINT, signal.SIGTERM)
# Of prctl: the signal that comes when the thread that started this process ends, here the main one.
PR_SET_PDEATHSIG = 1


@contextmanager
def hold_signals() -> Iterator[None]:
    """Hold signals to the group back while copies are made or ended.

    A copy lets them in when it is ready.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = {number: signal.getsignal(number) for number in TO_GROUPS}
    # Only the main thread may set handlers, and only there do they run.
    is_main = threading.current_thread() is threading.main_thread()
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, TO_GROUPS)
        # The mask is this thread's: one of a library takes the signal, and Python's handler runs.
        for number in TO_GROUPS if is_main else ():
            signal.signal(number, note)
        yield
    finally:
        for number in TO_GROUPS if is_main else ():
            signal.signal(number, handlers[number])
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for late in came:
            signal.raise_signal(late)


def let_signals_in() -> None:
    """Let in what was held back when this copy was made."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TO_GROUPS)


def end_with_parent() -> None:
    """Be killed when the process ends that this one is a copy of, however it ends (on Linux).

    Else the copy would hold its locks and the pipes to its loggers, and train for nobody.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
