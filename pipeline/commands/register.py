"""Registers this repository at the Prefect server of PREFECT_API_URL."""

import os
import sys

from pipeline.server.access import client_environment
from pipeline.server.ensure import ensure_server
from pipeline.server.names import POOL
from pipeline.server.register import (
    ensure_automation,
    ensure_deployments,
    ensure_pool,
    read_deployments,
)
from stages.common.errors import UserError


def main() -> None:
    """Register everything with the configured server."""
    try:
        url = ensure_server()
        ensure_pool(url)
        ensure_automation(url)
        ensure_deployments(url, {**os.environ, **client_environment(url)})
    except UserError as error:
        sys.exit(str(error))
    names = ", ".join(deployment["name"] for deployment in read_deployments(url))
    print(f"{url} knows work pool '{POOL}' and deployments {names}")


if __name__ == "__main__":
    main()
