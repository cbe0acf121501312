"""Runs a program of this Python's environment, such as DVC's, to its end."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.common.git import hide_secrets
from stages.common.errors import UserError

NUM_LINES_SHOWN = 15
HOUR = 3600


def python(*module: str) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", *module]


def run_program(
    module: str,
    *arguments: str,
    seconds: float,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
    failed: str | None = None,
) -> str:
    """The output of `module ARGUMENTS`, on either channel.

    Raises UserError when it takes longer than `seconds`, and when it fails: `failed`, then the
    last lines of it.
    """
    said = f"'{' '.join([module, *arguments])}'"
    try:
        done = subprocess.run(
            [*python(module), *arguments],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        limit = f"{seconds:.0f} s" if seconds < HOUR else f"{seconds / HOUR:.0f} hours"
        raise UserError(f"{said} did not end within {limit}") from None
    if done.returncode != 0:
        lines = [line for line in hide_secrets(done.stdout).splitlines() if line.strip()]
        shown = "\n".join(f"  {line}" for line in lines[-NUM_LINES_SHOWN:])
        raise UserError(f"{failed or f'{said} failed'}:\n{shown}")
    return done.stdout
