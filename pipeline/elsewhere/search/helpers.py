"""The helpers of a search, as the sender of it sees them: started beside it, ended with it."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun

from pipeline.elsewhere.link import Link
from pipeline.elsewhere.pool import cancel, find_runs, has_ended, start_run

LOOK_SECONDS = 10.0


def tag_of(key: str, number: int) -> str:
    """The tag of one helper's runs."""
    return f"{key}-helper-{number}"


class Helpers:
    """A number of helpers of one search. Final."""

    def __init__(
        self, link: Link, pool: str, key: str, num: int, parameters: Mapping[str, Any]
    ) -> None:
        self._link = link
        self._pool = pool
        self._tags = [tag_of(key, number + 1) for number in range(num)]
        self._parameters = {**parameters, "helper": True}
        self._looked = 0.0
        self._told: set[tuple[UUID, bool]] = set()

    def look(self, say: Callable[[str], None]) -> None:
        """Start those that are not there, and say why one has failed; now and then."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        for number, tag in enumerate(self._tags, start=1):
            run = self._link.ask(partial(self._ensure, tag=tag))
            if run is None or (run.id, has_ended(run)) in self._told:
                continue
            self._told.add((run.id, has_ended(run)))
            if has_ended(run):
                why = run.state.message if run.state else ""
                say(f"helper {number} of the search has failed: {why}")
            else:
                say(f"helper {number} of the search: the run '{run.name}' in the pool")

    def _ensure(self, client: SyncPrefectClient, tag: str) -> FlowRun | None:
        """The helper's run, or its last one where that has failed: it is not started again."""
        runs = find_runs(client, tag)
        if not runs or (runs[0].state is not None and runs[0].state.is_crashed()):
            return start_run(client, self._pool, tag, self._parameters)
        failed = runs[0].state is not None and runs[0].state.is_failed()
        return runs[0] if failed or not has_ended(runs[0]) else None

    def end(self, until: float | None = None) -> None:
        """End them all. Raises TimeoutError where the server does not answer `until` then."""
        for tag in self._tags:
            self._link.ask(partial(cancel, key=tag, message="the search has ended"), until)
