"""Dask's distributed scheduler as a mapper: parts are computed by the workers of a cluster.

A worker is a process of the same code and libraries that sees the same files; others are refused.
What a worker had begun when it was lost is computed anew by another one.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

from stages.common.errors import Problem, UserError
from stages.parallel.mapper import ENV_VAR, Mapper
from stages.parallel.remote_call import Answer, as_message, carry_out
from stages.parallel.same_code import (
    Origin,
    describe_process,
    describe_stage,
    find_faults,
    look,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
CONNECT_SECONDS = 5.0
# Without any worker, or any answer, for so long a cluster is given up.
WAIT_SECONDS = 60.0
LOOK_SECONDS = 1.0
# Parts that are sent ahead for each worker, so that none waits for its next one.
AHEAD = 3
MAX_SHOWN = 3
MARK = "seen-by-all"
GONE = "has gone away in the middle of the work"
INSTALL = "pip install --constraint constraints.txt --editable '.[dask]'"


@final
class Cluster(Mapper):
    """The workers of a cluster that compute as this process does."""

    is_remote = True

    def __init__(self, client: Any, address: str, origin: Origin) -> None:
        self._client, self._address, self._origin = client, address, origin

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        in_python: bool = False,  # noqa: ARG002  # A worker is a process in any case.
    ) -> Iterator[Result]:
        """Results by the workers; what a part printed is printed here, in the parts' order."""
        waiting: deque[Any] = deque()
        try:
            for item in items:
                message = as_message(self._origin, function, item)
                waiting.append(self._client.submit(carry_out, message, pure=False))
                if len(waiting) > AHEAD * max(1, len(find_workers(self._client, self._address))):
                    yield self._take(waiting.popleft())
            while waiting:
                yield self._take(waiting.popleft())
        finally:
            if waiting:
                self._client.cancel(list(waiting))

    def _take(self, future: Any) -> Any:
        """The result of a part, once it is there. Raises what the part raised."""
        from distributed import TimeoutError as NotYet

        alone_since = None
        while True:
            try:
                answer = future.result(timeout=LOOK_SECONDS)
            except NotYet:
                # Python's own name for it, too: a part may have raised it.
                if future.status == "error":
                    raise self._explain(future.exception(timeout=WAIT_SECONDS)) from None
                now = time.monotonic()
                is_alone = not find_workers(self._client, self._address)
                alone_since = (alone_since or now) if is_alone else None
                if alone_since is not None and now - alone_since > WAIT_SECONDS:
                    what = f"has had no worker for {WAIT_SECONDS:.0f} s that is not paused"
                    raise lost(self._address, what) from None
                continue
            except Exception as error:
                raise self._explain(error) from error
            assert isinstance(answer, Answer)
            if answer.printed:
                print(answer.printed, end="")
            return answer.value

    def _explain(self, error: Exception) -> Exception:
        """The user's mistake behind an error of the cluster; else the error itself."""
        from distributed.client import FutureCancelledError, FuturesCancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            return lost(
                self._address,
                f"has lost {error.allowed_failures + 1} workers over one part, the last "
                f"{error.last_worker.address}: its log says why (memory?)",
            )
        if isinstance(error, FutureCancelledError | FuturesCancelledError | CommClosedError):
            return lost(self._address, GONE)
        return error


@contextmanager
def open_cluster(address: str, stage: str, folder: Path) -> Iterator[Mapper]:
    """The cluster at `address`, of which each worker computes as this process does for `stage`.

    Raises UserError where there is none within seconds, and for workers with other code or
    libraries, or that don't see `folder`.
    """
    try:
        import distributed
    except ImportError:
        message = f"{ENV_VAR} names a cluster, and Dask is not installed: {INSTALL}"
        raise UserError(Problem(message, value=address, file="the environment")) from None
    # What it has to say, the errors here say.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(
            address, timeout=CONNECT_SECONDS, set_as_default=False, name=f"reprise-{stage}"
        )
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{ENV_VAR}: no scheduler of Dask's answers at {address}: {reason}"
        raise UserError(message) from None
    try:
        origin = _describe(stage, folder.resolve() / MARK)
        try:
            _check_workers(client, address, origin)
            yield Cluster(client, address, origin)
        finally:
            origin.mark.unlink(missing_ok=True)
    finally:
        client.close(timeout=CONNECT_SECONDS)


def _describe(name: str, mark: Path) -> Origin:
    """This process at the work of a stage; `mark` is written."""
    stage, content = describe_stage(name), secrets.token_hex()
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(content, encoding="utf-8")
    return Origin(stage, describe_process(stage), mark, content)


def lost(address: str, what: str) -> UserError:
    """The error of a cluster that is of no use any more."""
    return UserError(f"the cluster at {address} ({ENV_VAR}) {what}")


def find_workers(client: Any, address: str) -> dict[str, dict[str, Any]]:
    """The workers that take parts, by their addresses: one paused for want of memory takes none.

    Raises UserError where the scheduler does not answer.
    """
    identity = client.scheduler.identity
    try:
        found = client.sync(identity, n_workers=-1, callback_timeout=WAIT_SECONDS)["workers"]
    except OSError as error:
        is_late = isinstance(error, TimeoutError) and client.status == "running"
        silent = f"has not answered for {WAIT_SECONDS:.0f} s"
        raise lost(address, silent if is_late else GONE) from None
    return {name: worker for name, worker in found.items() if worker["status"] == "running"}


def _await_workers(client: Any, address: str) -> dict[str, dict[str, Any]]:
    """The workers, as soon as there is one."""
    until = time.monotonic() + WAIT_SECONDS
    while not (workers := find_workers(client, address)):
        if time.monotonic() > until:
            raise lost(
                address,
                f"has no worker, and none came in {WAIT_SECONDS:.0f} s: start one in a clone of "
                f"this commit: dask worker {address} --nthreads 1",
            )
        time.sleep(LOOK_SECONDS / 10)
    return workers


def _check_workers(client: Any, address: str, origin: Origin) -> None:
    """Stop at workers that would compute something else, or that don't see the files."""
    workers = _await_workers(client, address)
    # As `client.run`, which would wait for ever for a worker that has stopped.
    call = partial(client._run, look, origin.stage, origin.mark, on_error="return")
    try:
        found = client.sync(call, callback_timeout=WAIT_SECONDS)
    except OSError:
        what = f"has a worker that did not answer in {WAIT_SECONDS:.0f} s, or has gone away"
        raise lost(address, what) from None
    lines = []
    for worker, answer in sorted(found.items()):
        num_threads = workers.get(worker, {}).get("nthreads", 1)
        if num_threads > 1:
            lines.append(f"{worker}: it has {num_threads} threads: start it with --nthreads 1")
        lines += [f"{worker}: {line}" for line in _faults(answer, origin)]
    if lines:
        rest = len(lines) - MAX_SHOWN
        shown = [*lines[:MAX_SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
        raise UserError(
            f"workers of {address} ({ENV_VAR}) would not compute what this process does:\n  "
            + "\n  ".join(shown)
        )


def _faults(answer: Any, origin: Origin) -> list[str]:
    if isinstance(answer, Exception):
        return [f"it can't load the code of this project: {type(answer).__name__}: {answer}"]
    return find_faults(origin, *answer)
