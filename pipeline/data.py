"""Moves data between a run's clone, the DVC cache and the DVC remote, with DVC's own commands."""

import subprocess
from pathlib import Path

from pipeline.git import git, hide_secrets, names_of
from pipeline.services import python
from pipeline.workspace import Say
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml

# Large data takes its time; a connection that hangs does not take for ever.
TRANSFER_SECONDS = 6 * 3600.0
NUM_LINES_SHOWN = 15


def default_remote(folder: Path) -> str | None:
    """The name of the DVC remote that `dvc push` goes to, or None."""
    from dvc.config import Config

    name = Config(dvc_dir=str(folder / ".dvc"))["core"].get("remote")
    return str(name) if name else None


def fetch_data(folder: Path, say: Say) -> None:
    """Bring what `dvc.lock` and the `.dvc` files name: from the remote if there is one, else from
    the cache. What neither has is left out: a stage makes it anew.

    Raises UserError with what DVC says when it fails.
    """
    remote = default_remote(folder)
    if remote is None:
        say("no default DVC remote: data comes from this machine's DVC cache alone")
        dvc(folder, "checkout", "--allow-missing")
        return
    say(f"dvc pull from '{remote}'")
    dvc(folder, "pull", "--allow-missing", "--run-cache")


def push_data(folder: Path, say: Say) -> None:
    """Push all outputs and the record of past runs to the DVC remote, if there is one.

    Raises UserError with what DVC says when it fails.
    """
    remote = default_remote(folder)
    if remote is None:
        say("no default DVC remote: outputs stay in this machine's DVC cache")
        return
    say(f"dvc push to '{remote}'")
    dvc(folder, "push", "--run-cache")


def update_imports_of(folder: Path, say: Say) -> None:
    """Bring the data of `dvc import` and `dvc import-url` up to date with its source.

    Raises UserError with what DVC says when it fails.
    """
    imports = [name for name in _dvc_files(folder) if _is_import(folder / name)]
    if not imports:
        say("there are no imports to update")
        return
    say(f"dvc update {', '.join(imports)}")
    dvc(folder, "update", *imports)


def has_tracked_data(folder: Path) -> bool:
    """Whether DVC tracks files here that no stage makes (`dvc add`, `dvc import`)."""
    return bool(_dvc_files(folder))


def _dvc_files(folder: Path) -> list[str]:
    return names_of(git(folder, "ls-files", "-z", "--", "*.dvc"))


def _is_import(path: Path) -> bool:
    content = read_yaml(path)
    return isinstance(content, dict) and bool(content.get("deps"))


def dvc(folder: Path, *arguments: str) -> str:
    """What `dvc ARGUMENTS` prints in `folder`.

    Raises UserError with its last lines when it fails or takes too long.
    """
    try:
        done = subprocess.run(
            [*python("dvc"), *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TRANSFER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        hours = TRANSFER_SECONDS / 3600
        raise UserError(f"'dvc {arguments[0]}' did not end within {hours:.0f} hours") from None
    if done.returncode != 0:
        lines = [line for line in hide_secrets(done.stdout).splitlines() if line.strip()]
        shown = "\n".join(f"  {line}" for line in lines[-NUM_LINES_SHOWN:])
        raise UserError(f"'dvc {' '.join(arguments)}' failed:\n{shown}")
    return done.stdout
