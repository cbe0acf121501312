"""One state of a stage on its way to a work pool and back."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State
from prefect.utilities.urls import url_for

from pipeline.elsewhere.data import push_inputs
from pipeline.elsewhere.follow import Follower
from pipeline.elsewhere.inputs import Inputs
from pipeline.elsewhere.link import Link
from pipeline.elsewhere.names import not_run, read_silent_seconds
from pipeline.elsewhere.pool import cancel, find_going, start_run
from pipeline.elsewhere.refs import (
    LEFT,
    RESULT,
    STATE,
    fetch_ref,
    find_refs,
    note_taken,
    push_ref,
    ref_of,
    remove_refs,
    remove_taken,
    remove_useless,
)
from pipeline.elsewhere.search.helpers import Helpers
from pipeline.elsewhere.take import UnusableResultError, take_result
from pipeline.run.execute import read_grace_seconds
from pipeline.run.run_plan import check_pool
from pipeline.run.supervisor import ALONE_SECONDS
from stages.common.errors import UserError

MAX_RESENDS = 3
# While the server is silent the result may have come to origin.
LOOK_SECONDS = 30.0
ORIGIN_WAITS_SECONDS = (1.0, 5.0, 10.0, 30.0)
# Of the grace period, for what is left to do at the end.
REST_SECONDS = 1.0
POLL_SECONDS = 0.2


class Stopped(BaseException):
    """The sender was asked to end."""


class ResultIsThere(Exception):  # noqa: N818
    """The result came to origin while Prefect's server was out of reach."""


def _end_no_more() -> None:
    """Let no wish to end come between the outputs and their entry of `dvc.lock`."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Sending:
    """One state of a stage on its way to a work pool and back. Final."""

    def __init__(
        self,
        repo: Any,
        inputs: Inputs,
        commit: str,
        key: str,
        pool: str,
        say: Callable[[str], None],
        *,
        force: bool,
        workers: int,
    ) -> None:
        """Take the stage's inputs, the commit of its state, and the key of that."""
        self._say = say
        self._repo = repo
        self._inputs = inputs
        self._commit = commit
        self._key = key
        self._pool = pool
        self._folder = Path(repo.root_dir)
        self._silent_seconds = read_silent_seconds()
        self._link = Link(self._say, self._look_for_result)
        self._looked = time.monotonic()
        self._parameters = {
            "stage": inputs.stage.addressing,
            "key": key,
            "force": force,
            "silent_seconds": self._silent_seconds,
            "workers": workers,
        }
        self._helpers = Helpers(self._link, pool, key, workers, self._parameters)

    def run(self) -> int:
        """Find the result, join a run or start one; at most some more when it is lost."""
        stage = self._inputs.stage.addressing
        self._say(f"Running stage '{stage}' in the work pool '{self._pool}'")
        if self._has_result():
            self._say("its result is at origin already: a run before this one was not taken")
            return self._take()
        remove_taken(self._folder)
        try:
            state = self._follow_to_result()
        except ResultIsThere:
            state = None
        return self._take() if state is None else self._give_up(state)

    def _follow_to_result(self) -> State | None:
        """None once the result is at origin, else the last state of the last run."""
        self._link.ask(lambda client: check_pool(client, self._pool, self._say))
        lost = 0
        while True:
            state = self._run_once()
            # However the run has ended: a result that is there is the one of this state.
            if self._has_result():
                return None
            if state is None:
                continue
            if state.is_failed() or state.is_cancelled() or lost == MAX_RESENDS:
                return state
            lost += 1
            why = state.message or "its result is gone from origin"
            self._say(
                f"the run in the pool was lost ({why}): sending it again, {lost} of {MAX_RESENDS}"
            )

    def _run_once(self) -> State | None:
        """Follow a run to its end; None when it had been cancelled before it was found."""
        try:
            run, joined, ending = self._join()
            follower = Follower(
                self._link,
                run,
                self._pool,
                self._say,
                self._silent_seconds,
                lambda: self._helpers.look(self._say),
            )
            state = follower.follow()
            if not state.is_final() and not self._has_result():
                state = follower.follow(to_the_end=True)
        except Stopped:
            self._cancel()
            raise
        return None if joined and ending else state

    def _join(self) -> tuple[UUID, bool, bool]:
        run = self._link.ask(lambda client: find_going(client, self._key))
        joined = run is not None
        if run is None:
            pushed = push_inputs(self._repo, self._inputs.cached)
            push_ref(self._folder, self._commit, ref_of(self._key, STATE))
            what = f"with {', '.join(pushed)}" if pushed else "with no data"
            self._say(f"sent {self._commit[:10]} {what}")
            run = self._link.ask(
                lambda client: start_run(client, self._pool, self._key, self._parameters)
            )
        url = url_for("flow-run", run.id) or ""
        self._say(f"{'joined' if joined else 'started'} the run '{run.name}' in the pool: {url}")
        return run.id, joined, run.state is not None and run.state.is_cancelling()

    def _cancel(self) -> None:
        """Cancel the run in the pool, and wait for its end as long as there is time."""
        until = time.monotonic() + max(0.0, read_grace_seconds() - ALONE_SECONDS - REST_SECONDS)
        left: list[UUID] = []
        try:
            message = "the run that sent it has ended"
            left = self._link.ask(lambda client: cancel(client, self._key, message), until)
            self._helpers.end(until)
            for run in left:
                follower = Follower(self._link, run, self._pool, self._say, self._silent_seconds)
                while not follower.poll(until).is_final():
                    if time.monotonic() > until:
                        raise TimeoutError
                    time.sleep(POLL_SECONDS)
        except (TimeoutError, UserError, ResultIsThere):
            self._say("the run in the pool has not said yet that it has ended")
            with suppress(OSError):
                note_taken(self._folder, self._key, LEFT)
        else:
            self._say("the run in the pool has ended")
            with suppress(UserError):
                remove_useless(self._folder, self._key)

    def _give_up(self, state: State) -> int:
        stage = self._inputs.stage.addressing
        message = state.message or f"the run in the pool ended as '{state.name}'"
        if state.is_cancelled():
            message = "the run in the pool was cancelled in Prefect, not here"
        # Else its own lines have said why it failed there.
        if not message.startswith(f"{stage} failed ("):
            self._say(not_run(stage, self._pool))
        self._say(message)
        self._end_helpers()
        with suppress(UserError):
            remove_useless(self._folder, self._key)
        return 1

    def _end_helpers(self) -> None:
        """End those of a sender before this one, too; a server that is gone is not waited for."""
        with suppress(TimeoutError):
            self._helpers.end(time.monotonic())

    def _take(self) -> int:
        commit = fetch_ref(self._folder, ref_of(self._key, RESULT))
        try:
            take_result(self._repo, self._inputs, commit, self._key, _end_no_more)
        except UnusableResultError:
            # It would be found first each time.
            with suppress(UserError):
                remove_refs(self._folder, self._key)
            raise
        self._end_helpers()
        for key in remove_taken(self._folder):
            self._say(f"origin does not let us remove {ref_of(key, STATE)}")
        return 0

    def _has_result(self) -> bool:
        """Ask origin for the result, some times while it is out of reach. Raises UserError."""
        for seconds in ORIGIN_WAITS_SECONDS:
            with suppress(UserError):
                return RESULT in find_refs(self._folder, self._key)
            time.sleep(seconds)
        return RESULT in find_refs(self._folder, self._key)

    def _look_for_result(self) -> None:
        """Raise ResultIsThere once it is; called while Prefect's server is out of reach."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        # With the network gone neither answers.
        with suppress(UserError):
            if RESULT in find_refs(self._folder, self._key):
                raise ResultIsThere
