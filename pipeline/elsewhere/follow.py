"""Follows a run in a work pool to its end: its lines as they come, and signs that it lives."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import Log, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from pipeline.elsewhere.link import Link
from pipeline.elsewhere.names import ALIVE_LOG, DONE, STAGE_LOG
from pipeline.elsewhere.pool import crash, has_worker, read_lines

POLL_SECONDS = 1.0
# So long a run may wait for a worker without a word.
QUIET_SECONDS = 10.0
# A machine or a container may have to be started first.
PENDING_FACTOR = 4
# So long between two answers: what the run said meanwhile may still be on its way.
GAP_SECONDS = 5.0


@dataclass
class Follower:
    """The last news of one run. Final. `done` once it said that its result is at origin."""

    link: Link
    run: UUID
    pool: str
    say: Callable[[str], None]
    silent_seconds: float
    on_poll: Callable[[], None] = lambda: None
    done: bool = False
    _seen: set[UUID] = field(default_factory=set)
    _since: datetime | None = None
    _state: str = ""
    _heard: float = field(default_factory=time.monotonic)
    _polled: float = field(default_factory=time.monotonic)
    _cancelling: bool = False
    _told: bool = False

    def follow(self, *, to_the_end: bool = False) -> State:
        """Print the run's lines until it has done its work, or `to_the_end`; its last state.

        One that has fallen silent is given its end: its process is gone with its machine.
        """
        while True:
            state = self.poll()
            if state.is_crashed() and self._cancelling:
                # Its worker went away before it had ended it: nobody wants it back.
                return Cancelled(message=state.message)
            if state.is_final() or (self.done and not to_the_end):
                return state
            self._watch(state)
            self.on_poll()
            time.sleep(POLL_SECONDS)

    def poll(self, until: float | None = None) -> State:
        """Ask once for the state, and print what has come since. Raises TimeoutError."""
        # In this order: what a run has said, it has said before it ended.
        state = self.link.ask(self._read_state, until)
        lines = self.link.ask(lambda client: read_lines(client, self.run, self._since), until)
        new = [line for line in lines if line.id not in self._seen]
        # Of the time in which nobody answered here nothing is known of the run.
        now = time.monotonic()
        lost = now - self._polled > GAP_SECONDS
        if new or lost or state.type.value != self._state:
            self._heard, self._state = now, state.type.value
        self._polled = now
        self._cancelling = self._cancelling or state.is_cancelling()
        for line in new:
            self._print(line)
        self._seen = {line.id for line in lines}
        self._since = max([line.timestamp for line in lines], default=self._since)
        return state

    def _read_state(self, client: SyncPrefectClient) -> State:
        try:
            found = client.read_flow_run(self.run).state
        except ObjectNotFound:
            return Cancelled(message="the run was deleted in Prefect")
        assert found is not None
        return found

    def _print(self, line: Log) -> None:
        if line.name.endswith(STAGE_LOG):
            self.say(line.message)
        self.done = self.done or (line.name.endswith(ALIVE_LOG) and line.message == DONE)

    def _watch(self, state: State) -> None:
        """Say that nobody takes the run, or crash it when nothing is heard of it any more."""
        silence = time.monotonic() - self._heard
        if state.is_scheduled():
            if not self._told and silence > QUIET_SECONDS:
                self._told = True
                here = self.link.ask(lambda client: has_worker(client, self.pool))
                why = "its workers are busy" if here else "no worker of it is at work"
                self.say(f"waits in the work pool '{self.pool}': {why}")
            return
        limit = self.silent_seconds * (PENDING_FACTOR if state.is_pending() else 1)
        if silence > limit:
            message = f"no sign of life for {limit:g} s: its process or its machine is gone"
            self.link.ask(lambda client: crash(client, self.run, message))
