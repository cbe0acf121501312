"""A helper of a search that runs in the same pool: `reprise tune --work`, for as long as that."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

from pipeline.elsewhere.pool import find_going
from pipeline.run.execute import StageEnd, Supervisors, run_command
from pipeline.run.server_contact import POLL_SECONDS, Contact

WORKER = "stages.tools.search.worker"
# A search that was lost is sent again in less.
ALONE_SECONDS = 120.0
ASK_SECONDS = 10.0
PAUSE_SECONDS = 5.0


def help_search(
    key: str, supervisors: Supervisors, contact: Contact, say: Callable[[str], None]
) -> StageEnd:
    """Train trials of the search `key` until it has ended, or this run is cancelled."""
    watch = SearchWatch(key)
    with ThreadPoolExecutor(1) as pool:
        try:
            while True:
                command = [sys.executable, "-m", WORKER]
                running = pool.submit(run_command, "tune", command, supervisors, say)
                while not wait([running], POLL_SECONDS).done:
                    if contact.is_over() or watch.has_ended():
                        supervisors.end_all()
                end = running.result()
                if supervisors.ended:
                    return replace(end, state="ran", code=0)
                # Of a search that is forced the database says 'ended' until it begins.
                if end.state == "failed" or not watch.is_going():
                    return end
                time.sleep(PAUSE_SECONDS)
        finally:
            supervisors.end_all()


class SearchWatch:
    """Looks whether a run of the search is still going. Final."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._asked = 0.0
        self._going = time.monotonic()

    def has_ended(self) -> bool:
        """Check that no run of the search has been there for a while."""
        now = time.monotonic()
        if now - self._asked > ASK_SECONDS:
            self._asked = now
            if self.is_going():
                self._going = now
        return now - self._going > ALONE_SECONDS

    def is_going(self) -> bool:
        """Ask whether a run of the search has not ended; no answer is a yes."""
        try:
            with get_client(sync_client=True) as client:
                return find_going(client, self._key) is not None
        except (httpx.HTTPError, PrefectHTTPStatusError):
            return True
