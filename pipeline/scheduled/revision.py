"""Finds the commit that a run is to work at: a branch, a tag, a commit, or the default branch."""

import re
from pathlib import Path

from pipeline.common.git import TRANSFER_SECONDS, git, try_git
from stages.common.errors import UserError, did_you_mean

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}$")


def resolve_revision(base: Path, path: Path, remote: str, revision: str | None) -> tuple[str, str]:
    """The revision as a person says it, and its commit, in the clone `path` of `base`.

    A branch of `remote` ('origin' or 'base') is preferred to one of the repository itself. None
    is the default branch of origin, or the current branch of the repository where it has none.
    Raises UserError when there is no such thing.
    """
    if revision is None:
        return _default(base, path, remote)
    wanted = [f"refs/remotes/{remote}/{revision}", f"refs/remotes/base/{revision}"]
    wanted += [f"refs/tags/{revision}", *([revision] if _COMMIT.match(revision) else [])]
    for name in wanted:
        commit = _commit_of(path, name)
        if commit is not None:
            return revision, commit
    refs = git(path, "for-each-ref", "--format=%(refname)", "refs/remotes", "refs/tags")
    known = {re.sub(r"^refs/(remotes/[^/]+|tags)/", "", name) for name in refs.splitlines()}
    meant = did_you_mean(revision, known)
    hint = f"; did you mean '{meant}'?" if meant else ""
    raise UserError(f"there is no branch, tag or commit '{revision}'{hint}")


def _default(base: Path, path: Path, remote: str) -> tuple[str, str]:
    if remote == "origin":
        said = git(path, "ls-remote", "--symref", "origin", "HEAD", seconds=TRANSFER_SECONDS)
        match = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", said, flags=re.MULTILINE)
        commit = _commit_of(path, f"refs/remotes/origin/{match[1]}") if match else None
        if match is None or commit is None:
            raise UserError("origin names no default branch: give the run a revision")
        return match[1], commit
    named = try_git(base, "symbolic-ref", "--quiet", "--short", "HEAD").stdout.strip()
    commit = _commit_of(base, "HEAD")
    if commit is None:
        raise UserError(f"{base} has no commit yet: there is nothing to run")
    return named or commit[:10], commit


def _commit_of(folder: Path, name: str) -> str | None:
    done = try_git(
        folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
    )
    return done.stdout.strip() or None if done.returncode == 0 else None
