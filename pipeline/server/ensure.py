"""The Prefect server for a command: that of the configuration, of `reprise up`, or a new one."""

from pipeline.server.access import URL
from pipeline.server.prefect_api import answers, configured_server
from pipeline.server.services import read_alive
from pipeline.server.up import start_server_alone
from stages.common.errors import UserError

NEEDS_NO_SERVER = "'dvc repro' runs the pipeline without any server"


def find_server() -> str | None:
    """The address of the Prefect API of `reprise up` while it answers, else None."""
    server = read_alive().get("server")
    if server is not None and server.address is not None:
        url = f"{server.address}/api"
        if answers(url):
            return url
    return None


def ensure_server() -> str:
    """The address of a Prefect API that answers; starts a server if none is configured.

    Raises UserError, with what to do, if the configured one does not answer or none can be
    started.
    """
    configured = configured_server()
    if configured is not None:
        url, where = configured
        if not answers(url):
            raise UserError(
                f"the Prefect server at {url} does not answer ({URL} of {where})\n"
                f"  start it there, or unset {URL} and run 'reprise up' for a server of your own\n"
                f"  {NEEDS_NO_SERVER}"
            )
        return url
    url_of_up = find_server()
    if url_of_up is not None:
        return url_of_up
    return start_server_alone()
