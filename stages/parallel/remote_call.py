"""A function and its part as a message to a worker, and the worker's answer.

The scheduler hands messages on: it needs neither this project nor its libraries. So a message is
bytes, and the function that Dask is given is Python's own. To unpickle the message is to compute.
"""

import io
import pickle  # From this process to its cluster, as Dask itself does it.
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from stages.common.errors import UserError
from stages.parallel.same_code import code_digest

carry_out = pickle.loads


@dataclass(frozen=True)
class Code:
    """Files and folders of code, and their digest."""

    paths: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Answer:
    """The result of a part, and what was printed meanwhile."""

    value: Any
    printed: str


class _Call:
    """Becomes the answer where it is unpickled."""

    def __init__(self, code: Code, function: Callable[[Any], Any], item: object) -> None:
        self._call = code, function, item

    def __reduce__(self) -> tuple[Callable[..., Answer], tuple[Any, ...]]:
        return compute, self._call


def as_message(code: Code, function: Callable[[Any], Any], item: object) -> bytes:
    """The bytes that `carry_out` makes an Answer of, on a worker with that code."""
    return pickle.dumps(_Call(code, function, item), protocol=pickle.HIGHEST_PROTOCOL)


def compute(code: Code, function: Callable[[Any], Any], item: object) -> Answer:
    """Call `function` on a worker. Raises UserError where its code is another one.

    A worker may have come after the others were looked at.
    """
    if (own := code_digest(code.paths)) != code.digest:
        raise UserError(
            f"a worker that came late runs other code ({own}, and here it is {code.digest}): start "
            "it anew in a clone at this commit"
        )
    printed = io.StringIO()
    with redirect_stdout(printed):
        value = function(item)
    return Answer(value, printed.getvalue())
