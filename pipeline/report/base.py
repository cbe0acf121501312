"""The revision that the working folder is compared with: its commit, and its files in git."""

from pathlib import Path
from typing import Any

from pipeline.common.dvc_repo import default_remote
from pipeline.common.git import try_git
from stages.common.errors import UserError

HERE = Path()
BRANCHES = ("origin/HEAD", "main", "master")


def find_base(revision: str | None) -> tuple[str, str]:
    """The base revision as the user knows it, and its commit.

    Without a name it is where this branch has left the default one. Raises UserError.
    """
    for name in [revision] if revision is not None else BRANCHES:
        done = try_git(HERE, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        if done.returncode != 0:
            continue
        commit = done.stdout.strip()
        if revision is not None:
            return name, commit
        base = try_git(HERE, "merge-base", "HEAD", commit)
        if base.returncode != 0:
            raise UserError(
                f"this branch and {name} have no commit in common here\n"
                "  of a shallow clone 'git fetch --unshallow' brings it; --base names another base"
            )
        return f"the merge base with {name}", base.stdout.strip()
    if revision is not None:
        raise UserError(
            f"there is no revision '{revision}'\n  --base takes a branch, tag or commit"
        )
    raise UserError(f"none of {', '.join(BRANCHES)} is here: name the base with --base")


def fetch_command(commit: str | None) -> str:
    """The command that brings the outputs of a commit, or of the working folder (None).

    DVC fetches for branches of the clone's own: where none is at the commit, one has to be made.
    Without a remote to fetch from, outputs are made anew.
    """
    if default_remote(HERE) is None:
        where = "" if commit is None else f" at {commit[:10]}"
        return f"'dvc repro'{where} (no default DVC remote is set to fetch from)"
    if commit is None:
        return "'dvc fetch'"
    own = try_git(HERE, "for-each-ref", "--points-at", commit, "refs/heads").stdout.strip()
    make = "" if own else f"git branch base {commit[:10]} && "
    return f"'{make}dvc fetch --all-branches'"


def text_at(commit: str, path: str) -> str | None:
    """The text of a file at a commit, or None."""
    done = try_git(HERE, "show", f"{commit}:./{path}")
    return done.stdout if done.returncode == 0 else None


def parse(text: str | None) -> dict[str, Any]:
    """The content of a YAML file at a commit; empty where it is not there."""
    from ruamel.yaml import YAML

    content = YAML(typ="safe").load(text or "")
    return content if isinstance(content, dict) else {}
