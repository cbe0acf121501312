"""Processes that train together, forked from one that has loaded their libraries.

It is Python's own fork server: it lives as long as the process of pytest that asks first.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from typing import Any

MODULES = ["tests.support.training.one_of_many", "tests.support.training.divided"]
SECONDS = 240


def run_together(main: Callable[..., None], arguments: Iterable[Sequence[Any]]) -> None:
    """Call `main` in a process for each of `arguments`, at the same time; all must end well."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    processes = [context.Process(target=_begin, args=(main, *each)) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * len(processes)


def _begin(main: Callable[..., None], *arguments: Any) -> None:
    """Start processes of its own, as for a dataset, in the way that is usual outside."""
    multiprocessing.set_start_method("fork", force=True)
    main(*arguments)
