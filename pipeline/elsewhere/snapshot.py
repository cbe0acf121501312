"""A commit of the working folder as it is, edits that nobody has committed included.

It is made through an index of its own: no branch, no index and no file changes, and the same state
gives the same commit.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.common.git import git, names_of, try_git
from stages.common.errors import UserError

# A larger file would stay in git's history for ever.
MAX_UNTRACKED_BYTES = 20_000_000
MAX_SHOWN = 8
# What `git ls-files -v` puts before a file whose content git looks at itself.
TAGS = ("H", "M", "R", "C", "K", "?")
WHO = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "reprise"), ("EMAIL", "reprise@localhost"))
}


def make_snapshot(repo: Any, plain: Sequence[str], cached: Sequence[Any], message: str) -> str:
    """The commit of the working folder of `repo`: what git tracks, and of `plain` what is new.

    `cached` are outputs that DVC carries. Raises UserError that names what git can't carry.
    """
    folder = Path(repo.root_dir)
    if try_git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").returncode != 0:
        raise UserError("the repository has no commit yet: a stage is sent on top of one")
    here = [path for path in plain if (folder / path).exists()]
    _check_inside(folder, here)
    _check_ignored(repo, folder, here, cached)
    new = _new_files(folder, here)
    own = Path(git(folder, "rev-parse", "--absolute-git-dir"))
    with tempfile.TemporaryDirectory(prefix="reprise-", dir=own) as temporary:
        index = Path(temporary, "index")
        # With what git remembers of the files: it need not read them all.
        if (own / "index").exists():
            shutil.copy2(own / "index", index)
        env = {"GIT_INDEX_FILE": str(index)}
        _look_at_all(folder, here, env)
        git(folder, "add", "--update", "--", ":/", env=env)
        if new:
            git(folder, "add", "--", *(f":(literal){path}" for path in new), env=env)
        tree = git(folder, "write-tree", env=env)
    when = f"{git(folder, 'log', '-1', '--format=%ct', 'HEAD')} +0000"
    env = {**WHO, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    arguments = ["-p", "HEAD", "--no-gpg-sign", "-m", message]
    return git(folder, "commit-tree", tree, *arguments, env=env)


def _look_at_all(folder: Path, paths: Sequence[str], env: Mapping[str, str]) -> None:
    """Have git look at the files at `paths` that it was told to take for unchanged."""
    if not paths:
        return
    literal = [f":(literal){path}" for path in paths]
    listed = names_of(git(folder, "ls-files", "-v", "-z", "--", *literal, env=env))
    # Lower case: assume-unchanged; S: skip-worktree.
    told = [name for tag, _, name in (each.partition(" ") for each in listed) if tag not in TAGS]
    there = [name for name in told if (folder / name).exists()]
    if there:
        for option in ("--no-assume-unchanged", "--no-skip-worktree"):
            git(folder, "update-index", option, "--", *there, env=env)


def _check_inside(folder: Path, paths: Sequence[str]) -> None:
    outside = [path for path in paths if not (folder / path).resolve().is_relative_to(folder)]
    if outside:
        raise UserError(
            f"a stage can't be sent with what lies outside the repository: {', '.join(outside)}\n"
            "  bring it in: dvc add, or dvc import-url"
        )


def _check_ignored(repo: Any, folder: Path, paths: Sequence[str], cached: Sequence[Any]) -> None:
    """Refuse files of dependencies that git ignores, and DVC has not."""
    ignored = _list_others(folder, paths, "--ignored")
    outs = [out.fs_path for out in cached]
    left = []
    for name in ignored:
        path = str(folder / name)
        if not any(path == out or path.startswith(f"{out}/") for out in outs) and (
            not repo.dvcignore.is_ignored_file(path)
        ):
            left.append(name)
    if left:
        raise UserError(
            f"neither git nor DVC has these inputs, so no worker could get them: {_names(left)}\n"
            f"  dvc add {left[0]}   (or let git have it)"
        )


def _new_files(folder: Path, paths: Sequence[str]) -> list[str]:
    new = _list_others(folder, paths)
    large = [name for name in new if (folder / name).stat().st_size > MAX_UNTRACKED_BYTES]
    if large:
        raise UserError(
            f"too large for git, and DVC does not have them: {_names(large)}\n  dvc add {large[0]}"
        )
    return new


def _list_others(folder: Path, paths: Sequence[str], *options: str) -> list[str]:
    """The files at `paths` that git does not track."""
    if not paths:
        return []
    literal = [f":(literal){path}" for path in paths]
    arguments = ["--others", *options, "--exclude-standard", "-z", "--", *literal]
    return names_of(git(folder, "ls-files", *arguments))


def _names(names: Sequence[str]) -> str:
    rest = len(names) - MAX_SHOWN
    return ", ".join(names[:MAX_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
