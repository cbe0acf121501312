"""Processes that one worker of pytest starts for all, and that end with pytest by themselves."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 120


def start_for_session(command: Sequence[str], folder: Path, log: Path, ready: Path) -> None:
    """Start a process in `folder` that outlives this one; wait until it has made `ready`."""
    with log.open("ab") as output:
        # A shell that ends at once: tests look at the children of this process.
        subprocess.run(
            ["sh", "-c", '"$@" &', "sh", *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            check=True,
        )
    until = time.monotonic() + START_SECONDS
    while not ready.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert ready.exists(), f"{command} did not start:\n{log.read_text(errors='replace')[-4000:]}"
