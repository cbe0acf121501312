"""Moves data between a run's clone, the DVC cache and the DVC remote, with DVC's own commands."""

from pathlib import Path

from pipeline.common.dvc_repo import default_remote
from pipeline.common.git import git, names_of
from pipeline.common.programs import run_program
from pipeline.scheduled.workspace import Say
from stages.common.yamlfile import read_yaml

# Large data takes its time; a connection that hangs does not take for ever.
DATA_SECONDS = 6 * 3600.0


def fetch_data(folder: Path, say: Say) -> None:
    """Fetch the files of `dvc.lock` and `.dvc` from the remote, or from the cache if there is none.

    A file that neither has is left out: a stage makes it anew.

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
    """Check whether DVC tracks files here that no stage makes (`dvc add`, `dvc import`)."""
    return bool(_dvc_files(folder))


def _dvc_files(folder: Path) -> list[str]:
    return names_of(git(folder, "ls-files", "-z", "--", "*.dvc"))


def _is_import(path: Path) -> bool:
    content = read_yaml(path)
    return isinstance(content, dict) and bool(content.get("deps"))


def dvc(folder: Path, *arguments: str) -> str:
    """The output of `dvc ARGUMENTS` in `folder`.

    Raises UserError with its last lines when it fails or takes too long.
    """
    return run_program("dvc", *arguments, seconds=DATA_SECONDS, folder=folder)
