"""Dask's distributed scheduler as an mapper: parts are computed by the workers of a cluster.

A worker is a process of the same code and libraries that sees the same files; others are refused.
What a worker had begun when it was lost is computed anew by another one.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, final

from stages.common.errors import Problem, UserError
from stages.parallel.mapper import ENV_VAR, Mapper
from stages.parallel.remote_call import Answer, Code, as_message, carry_out
from stages.parallel.same_code import (
    Process,
    Stage,
    describe_process,
    describe_stage,
    differences,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
CONNECT_SECONDS = 5.0
# Without any worker for so long, a cluster is given up.
WAIT_SECONDS = 60.0
LOOK_SECONDS = 1.0
# Parts that are sent ahead for each thread of a worker, so that none waits for its next one.
AHEAD = 3
MAX_SHOWN = 3
INSTALL = "pip install --constraint constraints.txt --editable '.[dask]'"


@final
class Cluster(Mapper):
    """The workers of a cluster that compute as this process does."""

    is_remote = True

    def __init__(self, client: Any, address: str, code: Code) -> None:
        self._client, self._address, self._code = client, address, code

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        in_python: bool = False,  # noqa: ARG002  # A worker is a process in any case.
    ) -> Iterator[Result]:
        """As `Mapper.map`; what a part printed is printed here, in the parts' order."""
        waiting: deque[Any] = deque()
        try:
            for item in items:
                message = as_message(self._code, function, item)
                waiting.append(self._client.submit(carry_out, message, pure=False))
                if len(waiting) > AHEAD * max(1, self._num_threads()):
                    yield self._take(waiting.popleft())
            while waiting:
                yield self._take(waiting.popleft())
        finally:
            if waiting:
                self._client.cancel(list(waiting))

    def _num_threads(self) -> int:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return sum(worker["nthreads"] for worker in workers.values())

    def _take(self, future: Any) -> Any:
        """The result of a part, once it is there. Raises what the part raised."""
        from distributed import TimeoutError as NotYet

        alone_since = None
        while True:
            try:
                answer = future.result(timeout=LOOK_SECONDS)
            except NotYet:
                now = time.monotonic()
                is_alone = not self._client.scheduler_info(n_workers=-1)["workers"]
                alone_since = (alone_since or now) if is_alone else None
                if alone_since is not None and now - alone_since > WAIT_SECONDS:
                    raise self._lost(f"has had no worker for {WAIT_SECONDS:.0f} s") from None
                continue
            except Exception as error:
                raise self._explain(error) from error
            assert isinstance(answer, Answer)
            if answer.printed:
                print(answer.printed, end="")
            return answer.value

    def _explain(self, error: Exception) -> Exception:
        """The user's mistake behind an error of the cluster; else the error itself."""
        from distributed.client import FutureCancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            return self._lost(
                f"has lost {error.allowed_failures + 1} workers over one part, the last "
                f"{error.last_worker.address}: its log says why (memory?)"
            )
        if isinstance(error, FutureCancelledError | CommClosedError):
            return self._lost("has gone away in the middle of the work")
        return error

    def _lost(self, what: str) -> UserError:
        return UserError(f"the cluster at {self._address} ({ENV_VAR}) {what}")


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
        described = describe_stage(stage)
        process = describe_process(described)
        _check_workers(client, address, described, process, folder)
        yield Cluster(client, address, Code(described.code, process.digest))
    finally:
        client.close(timeout=CONNECT_SECONDS)


def _check_workers(client: Any, address: str, stage: Stage, process: Process, folder: Path) -> None:
    """Stop at workers that would compute something else, or that don't see the files."""
    from distributed import TimeoutError as NotYet

    try:
        client.wait_for_workers(1, timeout=WAIT_SECONDS)
    except NotYet:
        raise UserError(
            f"the cluster at {address} ({ENV_VAR}) has no worker, and none came in "
            f"{WAIT_SECONDS:.0f} s: start one in a clone of this commit: dask worker {address}"
        ) from None
    mark = folder.resolve() / "seen-by-all"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(secrets.token_hex(), encoding="utf-8")
    found = client.run(look, stage, mark, on_error="return")
    lines = []
    for worker, answer in sorted(found.items()):
        for line in _faults(answer, process, mark):
            lines.append(f"{worker}: {line}")
    mark.unlink()
    if lines:
        rest = len(lines) - MAX_SHOWN
        shown = [*lines[:MAX_SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
        raise UserError(
            f"workers of {address} ({ENV_VAR}) would not compute what this process does:\n  "
            + "\n  ".join(shown)
        )


def look(stage: Stage, mark: Path) -> tuple[Process, str]:
    """A worker's own description, and what it finds in a file of the stage's folder."""
    content = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    return describe_process(stage), content


def _faults(answer: Any, process: Process, mark: Path) -> list[str]:
    if isinstance(answer, Exception):
        return [f"it can't load the code of this project: {type(answer).__name__}: {answer}"]
    there, content = answer
    faults = differences(process, there)
    if content != mark.read_text(encoding="utf-8"):
        faults.append(
            f"it does not see {mark.parent}, where the parts lie: workers need a disk that all "
            "share, under the same path"
        )
    return faults
