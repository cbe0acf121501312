"""Chunks on as many threads as the machine has cores; the results come in order.

Each chunk is computed by one thread from its first step to its last: two cores then do two
chunks, with nothing to wait for in between, and neither the bytes nor the order of the results
depend on how many cores there are.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

from stages.common.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
# More would only wait for the one that reads and writes.
MAX_THREADS = 8


def num_threads() -> int:
    """`REPRISE_THREADS`, else the cores of this process, at most 8. Raises UserError."""
    threads = os.environ.get("REPRISE_THREADS")
    if threads is None:
        return min(MAX_THREADS, len(os.sched_getaffinity(0)))
    if not threads.isdigit() or int(threads) < 1:
        raise UserError(f"REPRISE_THREADS is '{threads}': it must be a whole number, 1 or more")
    return int(threads)


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """Results in the order of `items`, by as many threads; one is the caller's. See `map_on`."""
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from map_on(pool, function, items, threads)


def map_on(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], num_workers: int
) -> Iterator[Result]:
    """`function` of each of `items`, in their order, by the workers of `pool`.

    At most one item more than there are workers is held at a time. Ends with the first error, of
    `items` or of `function`.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
