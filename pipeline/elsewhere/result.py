"""The commit of a stage's result: its entry of `dvc.lock`, and the outputs that git tracks."""

import tempfile
from pathlib import Path
from typing import Any

from pipeline.common.git import git
from pipeline.elsewhere.inputs import find_stage
from pipeline.elsewhere.snapshot import WHO


def commit_result(repo: Any, name: str, parent: str) -> str:
    """The commit, on top of the state that was sent; no branch and no index changes."""
    folder, stage = Path(repo.root_dir), find_stage(repo, name)
    paths = [str(Path(stage.relpath).with_suffix(".lock"))]
    paths += [str(out) for out in stage.outs if not out.use_cache and out.protocol == "local"]
    there = [f":(literal){path}" for path in paths if (folder / path).exists()]
    own = Path(git(folder, "rev-parse", "--absolute-git-dir"))
    with tempfile.TemporaryDirectory(prefix="reprise-", dir=own) as temporary:
        env = {"GIT_INDEX_FILE": str(Path(temporary, "index"))}
        git(folder, "read-tree", parent, env=env)
        # Also where a '.gitignore' is in the way.
        git(folder, "add", "--force", "--", *there, env=env)
        tree = git(folder, "write-tree", env=env)
    when = f"{git(folder, 'log', '-1', '--format=%ct', parent)} +0000"
    env = {**WHO, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    arguments = ["-p", parent, "--no-gpg-sign", "-m", f"{name}, as it ran elsewhere"]
    return git(folder, "commit-tree", tree, *arguments, env=env)
