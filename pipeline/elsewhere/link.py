"""The line to Prefect's server from a stage's sender: a server out of reach is waited for."""

import time
from collections.abc import Callable
from typing import TypeVar

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pipeline.elsewhere.pool import is_passing
from stages.common.errors import UserError

ANSWER_SECONDS = 15.0
PAUSE_SECONDS = 1.0
# A server that is busy may miss some questions; nobody needs to hear of that.
SAY_SECONDS = 5.0

T = TypeVar("T")


class Link:
    """Questions to the server, each asked again until it is answered. Final."""

    def __init__(self, say: Callable[[str], None], on_wait: Callable[[], None]) -> None:
        """Take what gets a line about the server, and what is called while it is waited for."""
        self._say = say
        self._on_wait = on_wait
        self._client: SyncPrefectClient | None = None
        self._lost_since: float | None = None
        self._said = False

    def ask(self, question: Callable[[SyncPrefectClient], T], until: float | None = None) -> T:
        """The answer to `question`; `until` is when to give up, None: never.

        Raises UserError for what the server refuses, and TimeoutError.
        """
        while True:
            try:
                # Prefect's client would try again for a minute, deaf to the end of the run.
                with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                    answer = question(self._open())
            except (httpx.HTTPError, PrefectHTTPStatusError) as error:
                self._client = None
                if not is_passing(error):
                    raise UserError(f"Prefect's server refuses: {error}") from None
                self._wait(error, until)
                continue
            if self._said:
                self._say("Prefect's server answers again")
            self._lost_since, self._said = None, False
            return answer

    def _open(self) -> SyncPrefectClient:
        if self._client is None:
            client = get_client(sync_client=True, httpx_settings={"timeout": ANSWER_SECONDS})
            # For as long as this process runs.
            self._client = client.__enter__()
        return self._client

    def _wait(self, error: Exception, until: float | None) -> None:
        now = time.monotonic()
        if self._lost_since is None:
            self._lost_since = now
        if until is not None and now > until:
            raise TimeoutError
        if not self._said and now - self._lost_since > SAY_SECONDS:
            self._said = True
            reason = str(error) or type(error).__name__
            self._say(f"Prefect's server does not answer ({reason}); waiting for it")
        self._on_wait()
        time.sleep(PAUSE_SECONDS)
