"""Git: the repository, who commits, what a merge has left."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.common.git import git, try_git
from pipeline.doctor.finding import Finding, Options, note, ok, wrong

AREA = "git"
HERE = Path()
STALE_SECONDS = 600.0


def check(_options: Options) -> Iterator[Finding]:
    """Yield what git, or what is committed with it, would stumble over. Raises UserError."""
    if shutil.which("git") is None:
        why = "DVC, metrics that come back after a failure, and reports need it"
        yield wrong("there is no git on PATH", why, "apt-get install git")
        return
    if try_git(HERE, "rev-parse", "--git-dir").returncode != 0:
        why = "DVC refuses to work, and metrics can't come back after a failure"
        yield wrong("this folder is no git repository", why, "git init && git add . && git commit")
        return
    yield from check_identity()
    yield from check_merge()
    yield from check_locks(time.time())
    if git(HERE, "rev-parse", "--is-shallow-repository") == "true":
        why = "a report or a gate finds no base to compare with"
        yield note("the clone has only the last commits", why, "git fetch --unshallow")


def check_identity() -> Iterator[Finding]:
    """Yield whether git knows whose commits they are; by the variables too, as git does."""
    if try_git(HERE, "var", "GIT_COMMITTER_IDENT").returncode == 0:
        name = git(HERE, "var", "GIT_COMMITTER_IDENT").partition(" <")[0]
        yield ok(f"commits are by {name}")
        return
    yield wrong(
        "git does not know your name",
        "'git commit', 'dvc exp run' and scheduled runs, which commit, fail",
        "git config --global user.name 'Ada Lovelace'",
        "git config --global user.email ada@example.org",
    )


def check_merge() -> Iterator[Finding]:
    """Yield the files that a merge has left in conflict."""
    files = sorted(set(git(HERE, "diff", "--name-only", "--diff-filter=U").split()))
    if not files:
        yield ok("no conflicts")
        return
    why = "DVC reads neither dvc.lock nor params.yaml while they have marks of a conflict"
    locked = any(file.endswith("dvc.lock") for file in files)
    resolve = "reprise merge-lock" if locked else "git mergetool"
    yield wrong(f"in conflict: {', '.join(files[:6])}", why, resolve)


def check_locks(now: float) -> Iterator[Finding]:
    """Yield git's lock of its index where a killed git has left it."""
    lock = Path(git(HERE, "rev-parse", "--git-path", "index.lock"))
    try:
        seconds = now - lock.stat().st_mtime
    except OSError:
        return
    if seconds > STALE_SECONDS:
        why = "git refuses to add and to commit; it was most likely killed"
        yield wrong(f"{lock} is there for {seconds / 60:.0f} minutes", why, f"rm {lock}")
