"""The one way to compute a function of many parts of a table: on threads here, or on a cluster.

    with open_mapper("prepare", folder) as mapper:
        for found in mapper.map(function, parts):
            …

Results come in the order of the parts, at most some of them waiting; the first error, in that
order, ends all. What a mapper may be given is a pure function of its part: it returns the same
wherever it runs, and may run twice. So the mapper changes no byte of any output.
"""

import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar, final

from stages.parallel.thread_map import map_in_order, map_on, num_threads

Item = TypeVar("Item")
Result = TypeVar("Result")
# The address of a scheduler of Dask's, such as tcp://10.0.0.7:8786.
ENV_VAR = "REPRISE_DASK"


class Mapper(ABC):
    """Maps functions over parts."""

    # Whether parts leave this machine: then they are named by files that all machines see, and
    # functions are those of modules.
    is_remote: bool

    @abstractmethod
    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, in_python: bool = False
    ) -> Iterator[Result]:
        """`function` of each of `items`, in their order.

        `in_python`: it spends its time in Python, of which a process computes one line at a time.
        """


@final
class Local(Mapper):
    """Threads of this process, as many as `REPRISE_THREADS` says; for Python processes."""

    is_remote = False

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, in_python: bool = False
    ) -> Iterator[Result]:
        """Results by threads, or by processes where `in_python`."""
        threads = num_threads()
        if in_python and threads > 1:
            return _map_in_processes(function, items, threads)
        return map_in_order(function, items, threads)


def _map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from map_on(pool, function, items, processes)
