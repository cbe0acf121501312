"""Requests that wait at the same time go into one run of the model.

An idle server runs a request at once. Those that come while a run is going are put together when
it ends. A run that is short enough is done on the event loop itself, where handing it to a thread
would cost more than the run; a longer one in a thread, so that other requests are read meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipeline.serve.bundle import Bundle
from pipeline.serve.codec.problems import RequestError
from pipeline.serve.codec.rows import Arrays
from pipeline.serve.codec.tensors import Tensor

# A larger request runs alone.
MAX_BATCH_ROWS = 1024
RETRY_SECONDS = 1
Outputs = list[Tensor]


@dataclass(frozen=True)
class Job:
    """Feeds of one request, for the model that they were read for."""

    bundle: Bundle
    feeds: Arrays
    num_rows: int
    done: "asyncio.Future[Outputs]"


class Batcher:
    """The queue in front of the model; one for an event loop.

    `observe` is told the number of rows of each run.
    """

    def __init__(self, max_queued_rows: int, observe: Callable[[int], None]) -> None:
        self._max_queued_rows, self._observe = max_queued_rows, observe
        self._queue: deque[Job] = deque()
        self._queued_rows = 0
        # Whether a run is going or about to start.
        self._busy = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    @property
    def queued_rows(self) -> int:
        """The rows that wait for a run."""
        return self._queued_rows

    async def run(self, bundle: Bundle, feeds: Arrays, num_rows: int) -> Outputs:
        """The model's outputs for these rows. Raises RequestError 503 when the queue is full."""
        if self._queue and self._queued_rows + num_rows > self._max_queued_rows:
            raise RequestError(
                503,
                f"{self._queued_rows} rows are waiting: try again later",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        loop = asyncio.get_running_loop()
        job = Job(bundle, feeds, num_rows, loop.create_future())
        self._queue.append(job)
        self._queued_rows += num_rows
        if not self._busy:
            self._busy = True
            # Those that this turn of the loop has read yet come along.
            loop.call_soon(self._start)
        return await job.done

    def close(self) -> None:
        """End the thread once its run is done."""
        self._thread.shutdown(wait=False)

    def _start(self) -> None:
        jobs = self._take()
        if not jobs:
            self._busy = False
            return
        num_rows = sum(job.num_rows for job in jobs)
        self._observe(num_rows)
        loop = asyncio.get_running_loop()
        if num_rows <= jobs[0].bundle.inline_rows:
            try:
                _deliver(jobs, _run(jobs))
            except Exception as error:
                _fail(jobs, error)
            loop.call_soon(self._start)
            return
        going = loop.run_in_executor(self._thread, _run, jobs)

        def finish(ended: "asyncio.Future[Outputs]") -> None:
            error = ended.exception()
            if error is None:
                _deliver(jobs, ended.result())
            else:
                _fail(jobs, error)
            self._start()

        going.add_done_callback(finish)

    def _take(self) -> list[Job]:
        """The next jobs for one run: of one model, and no more rows than fit."""
        jobs: list[Job] = []
        num_rows = 0
        while self._queue:
            job = self._queue[0]
            if job.done.done():
                # Who asked has gone, or waited too long.
                self._drop()
                continue
            other = jobs and job.bundle is not jobs[0].bundle
            if other or (jobs and num_rows + job.num_rows > MAX_BATCH_ROWS):
                break
            self._drop()
            jobs.append(job)
            num_rows += job.num_rows
        return jobs

    def _drop(self) -> None:
        self._queued_rows -= self._queue.popleft().num_rows


def _run(jobs: list[Job]) -> Outputs:
    bundle = jobs[0].bundle
    if len(jobs) == 1:
        return bundle.run(jobs[0].feeds)
    names = jobs[0].feeds
    return bundle.run({name: np.concatenate([job.feeds[name] for job in jobs]) for name in names})


def _deliver(jobs: list[Job], outputs: Outputs) -> None:
    start = 0
    for job in jobs:
        if not job.done.done():
            job.done.set_result([part[start : start + job.num_rows] for part in outputs])
        start += job.num_rows


def _fail(jobs: list[Job], error: BaseException) -> None:
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(error)
