"""Publishes the results of a run in its own clone: outputs in the DVC remote, a commit on a branch.

The branch is `reprise/DEPLOYMENT/RUN`, pushed to `origin` where the repository has that, else put
into the repository itself, whose working folder does not change by that. No change, no commit;
and none either when a run before has left the same result for the same revision.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipeline.common.git import TRANSFER_SECONDS, git, hide_secrets, names_of, try_git
from pipeline.common.lockfile import LOCK, find_stale, read_lock
from pipeline.metrics.metrics import format_value, read_metrics
from pipeline.scheduled.workspace import Say, Workspace
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml

MAX_PUSHES = 5
MAX_NAMES_TRIED = 9
IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "reprise"), ("EMAIL", "reprise@localhost"))
}
# What git says when somebody has pushed to the same branch in the meantime.
_OVERTAKEN = re.compile(r"fetch first|non-fast-forward|stale info|cannot lock ref|failed to update")


def publish(
    workspace: Workspace,
    deployment: str,
    states: Mapping[str, str],
    say: Say,
    notes: Sequence[str] = (),
) -> None:
    """Commit what the run has changed in its clone and push it; `notes` go into the message.

    Raises UserError, with the commit kept on a branch of the repository, when it can't be pushed.
    """
    folder = workspace.path
    paths = changed_paths(folder)
    if not paths:
        say(f"nothing differs from {workspace.revision}: no commit")
        return
    git(folder, "add", "--all", "--", *(f":(top,literal){path}" for path in paths))
    message = describe(workspace, deployment, states, notes)
    identity = _identity(folder)
    # A worker has nobody who could unlock a key for a signature.
    arguments = ["--quiet", "--no-gpg-sign", "--no-verify", "--message", message]
    git(folder, "commit", *arguments, env=identity)
    commit = git(folder, "rev-parse", "HEAD")
    same = find_same(workspace, deployment, commit)
    if same is not None:
        say(f"{same} holds the same results for {workspace.commit[:10]} already: no new branch")
        return
    branch = f"reprise/{deployment}/{workspace.name}"
    commit = _push(workspace, branch, commit, identity, say)
    where = "the repository itself" if workspace.remote == "base" else workspace.remote
    _note_branch(workspace, branch, commit, say)
    say(f"results are on branch {branch} of {where}: {commit[:10]}, {', '.join(paths)}")


def changed_paths(folder: Path) -> list[str]:
    """The paths from the clone's top that a run has changed and git is to keep.

    Tracked files, and new ones that are outputs of a stage, a `.dvc` file, or a `.gitignore`
    that DVC has written beside them.
    """
    listed = names_of(
        git(folder, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all")
    )
    prefix = git(folder, "rev-parse", "--show-prefix")
    outputs = [f"{prefix}{path}" for path in _output_paths(folder)]
    paths = []
    for entry in listed:
        state, path = entry[:2], entry[3:]
        name = path.rpartition("/")[2]
        declared = any(path == out or path.startswith(f"{out}/") for out in outputs)
        made_by_dvc = name in (".gitignore", "dvc.lock") or name.endswith(".dvc")
        if state != "??" or declared or made_by_dvc:
            paths.append(path)
    return paths


def _output_paths(folder: Path) -> list[str]:
    lock = folder / LOCK
    stages = (read_yaml(lock).get("stages") or {}) if lock.exists() else {}
    return [str(out["path"]) for stage in stages.values() for out in stage.get("outs", [])]


def find_same(workspace: Workspace, deployment: str, commit: str) -> str | None:
    """A branch of this deployment with the same files on top of the same revision, or None."""
    folder, remote = workspace.path, workspace.remote
    # Another run may have ended since this one has begun.
    refs = f"refs/heads/reprise/{deployment}/*:refs/remotes/{remote}/reprise/{deployment}/*"
    git(folder, "fetch", "--quiet", remote, f"+{refs}", seconds=TRANSFER_SECONDS)
    tree = git(folder, "rev-parse", f"{commit}^{{tree}}")
    pattern = f"refs/remotes/{remote}/reprise/{deployment}/"
    listed = git(folder, "for-each-ref", "--format=%(refname)%00%(tree)%00%(parent)", pattern)
    for line in listed.splitlines():
        name, its_tree, parents = line.split("\0")
        if its_tree == tree and parents.split() == [workspace.commit]:
            return name.removeprefix(f"refs/remotes/{remote}/")
    return None


def describe(
    workspace: Workspace, deployment: str, states: Mapping[str, str], notes: Sequence[str]
) -> str:
    """The commit's message: the stages by how they ended, the notes, and the metrics of all."""
    by_state: dict[str, list[str]] = {}
    for stage, state in states.items():
        by_state.setdefault(state, []).append(stage)
    ran = ", ".join(by_state.get("ran", [])) or "nothing ran, outputs restored"
    lines = [f"{deployment}: {ran}", ""]
    lines.append(f"Run {workspace.name} at {workspace.revision} ({workspace.commit[:10]}).")
    lines += [f"{state}: {', '.join(stages)}" for state, stages in by_state.items()]
    lines += notes
    stale = find_stale(read_lock(workspace.path))
    for stage, metrics in read_metrics(workspace.path).items():
        mark = f" (stale: of before {stale[stage]} ran)" if stage in stale else ""
        shown = ", ".join(f"{name} {format_value(value)}" for name, value in metrics.items())
        lines += ["", f"{stage}{mark}: {shown}"]
    return "\n".join(lines) + "\n"


def _identity(folder: Path) -> dict[str, str]:
    """Nothing where git knows who commits, else an identity of the project's own."""
    known = all(
        try_git(folder, "-c", "user.useConfigOnly=true", "var", f"GIT_{who}_IDENT").returncode == 0
        for who in ("AUTHOR", "COMMITTER")
    )
    return {} if known else IDENTITY


def _push(
    workspace: Workspace, branch: str, commit: str, identity: Mapping[str, str], say: Say
) -> str:
    """Push `commit`, on top of what others have pushed to the same branch; never with force."""
    folder, remote = workspace.path, workspace.remote

    def keep(why: str) -> UserError:
        kept = _keep_locally(workspace, branch, git(folder, "rev-parse", "HEAD"))
        return UserError(f"{why}\n  the results are on branch {kept} of {workspace.base}")

    for _ in range(MAX_PUSHES):
        said = _try_push(folder, remote, commit, branch, keep)
        if said is None:
            return commit
        say(f"{branch} has been pushed to by somebody else ({said}): again, on top of that")
        fetched = try_git(
            folder, "fetch", "--quiet", remote, f"refs/heads/{branch}", seconds=TRANSFER_SECONDS
        )
        if fetched.returncode != 0:
            continue  # it has been removed again
        rebased = try_git(folder, "rebase", "--quiet", "FETCH_HEAD", env=identity)
        if rebased.returncode != 0:
            files = git(folder, "diff", "--name-only", "--diff-filter=U").split()
            try_git(folder, "rebase", "--abort")
            what = f"what others have pushed to {branch} conflicts with these results"
            raise keep(f"{what}: {', '.join(files) or hide_secrets(rebased.stderr.strip())}")
        commit = git(folder, "rev-parse", "HEAD")
    raise keep(f"{branch} has been overtaken {MAX_PUSHES} times")


def _try_push(
    folder: Path, remote: str, commit: str, branch: str, keep: Callable[[str], UserError]
) -> str | None:
    """None when it has been pushed, or how it was overtaken; any other failure is raised."""
    try:
        arguments = ["--porcelain", remote, f"{commit}:refs/heads/{branch}"]
        done = try_git(folder, "push", *arguments, seconds=TRANSFER_SECONDS)
    except UserError as error:
        raise keep(str(error)) from None
    if done.returncode == 0:
        return None
    text = hide_secrets(f"{done.stdout}\n{done.stderr}".strip())
    rejected = [line for line in text.splitlines() if line.startswith("!")]
    reason = rejected[0].rpartition("\t")[2] if rejected else ""
    if _OVERTAKEN.search(reason):
        return reason
    raise keep(
        f"cannot push {branch} to {remote}:\n"
        + "\n".join(f"  {line}" for line in text.splitlines()[-8:])
    )


def _note_branch(workspace: Workspace, branch: str, commit: str, say: Say) -> None:
    """Let the repository know a branch of origin, as a push from there would have done.

    What `reprise gc` keeps is what the repository knows.
    """
    if workspace.remote != "origin":
        return
    noted = f"+{commit}:refs/remotes/origin/{branch}"
    done = try_git(workspace.path, "push", "--quiet", "base", noted)
    if done.returncode != 0:
        what = f"{workspace.base} does not know {branch} before its next 'git fetch'"
        say(f"{what}: {hide_secrets(done.stderr.strip())}")


def _keep_locally(workspace: Workspace, branch: str, commit: str) -> str:
    """Put `commit` on a branch of the repository itself; the name that it got."""
    for number in range(1, MAX_NAMES_TRIED + 1):
        name = branch if number == 1 else f"{branch}-{number}"
        # To a branch that nobody has checked out: no working folder changes.
        done = try_git(workspace.path, "push", "--quiet", "base", f"{commit}:refs/heads/{name}")
        if done.returncode == 0:
            return name
    raise UserError(
        f"cannot put {commit[:10]} on a branch of {workspace.base}; it is in {workspace.path}\n"
        f"  {hide_secrets(done.stderr.strip())}"
    )
