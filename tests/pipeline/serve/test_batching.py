"""Requests that wait go into one run of the model."""

import asyncio

import pytest

from pipeline.serve.batching import Batcher
from pipeline.serve.bundle import Bundle
from pipeline.serve.codec.problems import RequestError
from pipeline.serve.service import Service
from tests.support.serving import ROWS, Slow, ask, rows_of, with_session


def test_requests_that_wait_go_into_one_run(bundle: Bundle) -> None:
    async def load(inline_rows: int) -> list[int]:
        session = Slow()
        slow = with_session(bundle, session, inline_rows)
        batcher = Batcher(1000, lambda _: None)
        first = asyncio.create_task(batcher.run(slow, rows_of(0), 1))
        await asyncio.sleep(0.01)
        rest = [batcher.run(slow, rows_of(i, -i), 2) for i in range(1, 9)]
        found = await asyncio.gather(first, *rest)
        assert [out[0].tolist() for out in found[1:]] == [[2 * i, -2 * i] for i in range(1, 9)]
        assert batcher.queued_rows == 0
        return session.runs

    assert asyncio.run(load(0)) == [1, 16]
    # On the event loop itself, too.
    assert asyncio.run(load(1000)) == [1, 16]


def test_two_models_are_not_mixed_and_a_batch_is_bounded(bundle: Bundle) -> None:
    async def load() -> None:
        old, new = Slow(0.01), Slow(0.01)
        batcher = Batcher(10_000, lambda _: None)
        jobs = [
            batcher.run(with_session(bundle, session), rows_of(*range(size)), size)
            for session, size in ((old, 1000), (old, 25), (new, 3), (old, 2000), (new, 1))
        ]
        found = await asyncio.gather(*jobs)
        assert [len(out[0]) for out in found] == [1000, 25, 3, 2000, 1]
        assert (old.runs, new.runs) == ([1000, 25, 2000], [3, 1])

    asyncio.run(load())


def test_a_full_queue_says_when_to_try_again(bundle: Bundle) -> None:
    async def load() -> None:
        slow = with_session(bundle, Slow(0.1))
        batcher = Batcher(10, lambda _: None)
        running = [asyncio.create_task(batcher.run(slow, rows_of(*range(6)), 6))]
        await asyncio.sleep(0.02)
        running.append(asyncio.create_task(batcher.run(slow, rows_of(*range(6)), 6)))
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as refused:
            await batcher.run(slow, rows_of(*range(6)), 6)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        # Who gives up waiting makes room.
        running[1].cancel()
        await running[0]
        assert len((await batcher.run(slow, rows_of(1), 1))[0]) == 1

    asyncio.run(load())


@pytest.mark.parametrize("inline_rows", [0, 100])
def test_a_run_that_fails_fails_its_requests_alone(
    service: Service, bundle: Bundle, inline_rows: int
) -> None:
    service.take(with_session(bundle, Slow(0, fails=True), inline_rows))
    answer = ask(service, "POST", "/predict", {"rows": ROWS[:1]})
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    service.take(bundle)
    assert ask(service, "POST", "/predict", {"rows": ROWS[:1]}).status_code == 200
