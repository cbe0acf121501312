"""Contact of a run with Prefect's server: a wish to cancel the run, and signs of life.

The stages need no server. So a run continues without one, and only its end waits a while for it.
"""

import time
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pipeline.run.console import Console

POLL_SECONDS = 1.0
# A server that is busy may miss some questions; nobody needs to hear of that.
SAY_SECONDS = 5.0
# A server that is started again takes about ten.
LOST_SECONDS = 20.0


class Contact:
    """The line to the server of the current flow run. Final."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # When it last answered, and whether its silence has been spoken of.
        self._heard = time.monotonic()
        self._said = False
        self._cancelled = False
        self._over = False

    def is_cancelled(self) -> bool:
        """Return True if somebody has asked Prefect to cancel the current flow run."""
        self._ask()
        return self._cancelled

    def is_over(self) -> bool:
        """Return True if the current flow run was cancelled, or given its end by somebody else."""
        self._ask()
        return self._cancelled or self._over

    def is_there(self) -> bool:
        """Check that the server answers, or does so before `LOST_SECONDS` of silence."""
        while not self._ask():
            if time.monotonic() - self._heard > LOST_SECONDS:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _ask(self) -> bool:
        """Ask once how the flow run stands; False when there is no answer."""
        # Prefect's client would try again for a minute, and the run would stand still.
        once = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
        client = get_client(sync_client=True, httpx_settings={"timeout": POLL_SECONDS})
        try:
            with once, client:
                state = client.read_flow_run(UUID(str(flow_run.id))).state
            self._cancelled = state is not None and (state.is_cancelling() or state.is_cancelled())
            self._over = state is not None and state.is_final()
        except ObjectNotFound:
            self._cancelled = True  # deleted in the UI
        except (httpx.HTTPError, PrefectHTTPStatusError) as error:
            if not self._said and time.monotonic() - self._heard > SAY_SECONDS:
                self._said = True
                reason = str(error) or type(error).__name__
                self._console.note(
                    f"Prefect's server does not answer ({reason}); continuing without it"
                )
            return False
        if self._said:
            self._console.note("Prefect's server answers again")
        self._said, self._heard = False, time.monotonic()
        return True
