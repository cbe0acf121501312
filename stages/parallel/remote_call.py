"""A function and its part as a message to a worker, and the worker's answer.

The scheduler hands messages on: it needs neither this project nor its libraries. So a message is
bytes, and the function that Dask is given is Python's own. To unpickle the message is to compute.
"""

import io
import pickle  # From this process to its cluster, as Dask itself does it.
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from stages.parallel.same_code import Origin, check_here

carry_out = pickle.loads
# What a part prints is caught for the whole process: so one part at a time.
ALONE = threading.Lock()


@dataclass(frozen=True)
class Answer:
    """The result of a part, and what was printed meanwhile."""

    value: Any
    printed: str


class _Call:
    """Becomes the answer where it is unpickled."""

    def __init__(self, origin: Origin, function: Callable[[Any], Any], item: object) -> None:
        self._call = origin, function, item

    def __reduce__(self) -> tuple[Callable[..., Answer], tuple[Any, ...]]:
        return compute, self._call


def as_message(origin: Origin, function: Callable[[Any], Any], item: object) -> bytes:
    """The bytes that `carry_out` makes an Answer of, on a worker that computes as `origin` does."""
    return pickle.dumps(_Call(origin, function, item), protocol=pickle.HIGHEST_PROTOCOL)


def compute(origin: Origin, function: Callable[[Any], Any], item: object) -> Answer:
    """Call `function` on a worker. Raises UserError where it would not compute as `origin` does.

    A worker may have come after the others were looked at.
    """
    printed = io.StringIO()
    with ALONE, redirect_stdout(printed):
        check_here(origin)
        value = function(item)
    return Answer(value, printed.getvalue())
