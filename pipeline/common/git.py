"""Runs git: never waits for a password, never takes another repository's environment for this one.

Whatever it says goes through `hide_secrets` before anybody sees it: addresses of remotes may hold
tokens.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.common.errors import UserError

TIMEOUT_SECONDS = 120.0
# For what goes over a network.
TRANSFER_SECONDS = 1800.0
NUM_LINES_SHOWN = 12
# Set inside a git hook, where they name the repository of the hook.
_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")
# What git says, now and before 2.35.3.
_FOREIGN = re.compile(r"(?:dubious ownership in repository at|unsafe repository \()\s*'([^']+)'")
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s]+@")


class ForeignFolderError(UserError):
    """The repository belongs to another user than the one who asks, so git reads nothing of it."""

    def __init__(self, folder: Path) -> None:
        try:
            owner = f"user {folder.stat().st_uid}"
        except OSError:
            owner = "another user"
        super().__init__(
            f"git reads nothing in {folder}: it belongs to {owner}, and you are {os.geteuid()}\n"
            "  git calls this 'dubious ownership', as is usual for a mounted or copied folder\n"
            "  if you trust what is in it: "
            f"git config --global --add safe.directory {shlex.quote(str(folder))}"
        )


def git(
    folder: Path,
    *arguments: str,
    seconds: float = TIMEOUT_SECONDS,
    env: Mapping[str, str] | None = None,
) -> str:
    """The output of `git ARGUMENTS` in `folder`, without the last line's end.

    Raises UserError with what git says when it fails or takes too long.
    """
    done = try_git(folder, *arguments, seconds=seconds, env=env)
    if done.returncode != 0:
        raise UserError(_said(arguments, folder, done))
    return done.stdout.rstrip("\n")


def try_git(
    folder: Path,
    *arguments: str,
    seconds: float = TIMEOUT_SECONDS,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run git as `git` does, for a command that may fail.

    Raises UserError when there is no git, or when it takes too long.
    """
    text = {"encoding": "utf-8", "errors": "surrogateescape"}
    return _run(folder, arguments, seconds, env or {}, stdin=subprocess.DEVNULL, **text)


def try_git_bytes(
    folder: Path, *arguments: str, stdin: bytes = b"", seconds: float = TIMEOUT_SECONDS
) -> subprocess.CompletedProcess[bytes]:
    """Run git as `try_git` does, with bytes in (`stdin`) and out."""
    return _run(folder, arguments, seconds, {}, input=stdin)


def _run(
    folder: Path,
    arguments: tuple[str, ...],
    seconds: float,
    env: Mapping[str, str],
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**_environment(), **env},
            capture_output=True,
            timeout=seconds,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"'git {arguments[0]}' did not end within {seconds:.0f} s") from None
    except OSError as error:
        raise UserError(f"cannot run git in {folder}: {error.strerror or error}") from None
    said = done.stderr if isinstance(done.stderr, str) else done.stderr.decode(errors="replace")
    if done.returncode != 0 and (found := _FOREIGN.search(said)):
        raise ForeignFolderError(Path(found[1]))
    return done


def check_owner(folder: Path) -> None:
    """Raise ForeignFolderError where git would read nothing, and DVC would end with a traceback."""
    if shutil.which("git") is not None:
        try_git(folder, "rev-parse", "--git-dir")


def hide_secrets(text: str) -> str:
    """`text` without the user names and passwords of the addresses in it."""
    return _USER_IN_ADDRESS.sub("***@", text)


def names_of(text: str) -> list[str]:
    """The entries of what a git command with `-z` has printed."""
    return [name for name in text.split("\0") if name]


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
    # Messages are compared with; a lock of somebody's index is never taken just to look.
    return {**kept, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


def _said(arguments: tuple[str, ...], folder: Path, done: subprocess.CompletedProcess[str]) -> str:
    text = hide_secrets(done.stderr.strip() or done.stdout.strip())
    lines = [f"  {line}" for line in text.splitlines()[-NUM_LINES_SHOWN:]]
    # Not the whole command: an argument may be an address.
    return "\n".join([f"'git {arguments[0]}' failed in {folder}:", *lines])
