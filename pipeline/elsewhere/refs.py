"""The private refs of a run in `origin`: the state that was sent, and the result.

They are no branches: no clone fetches them by itself, and nothing that a person looks at changes.
"""

import re
from contextlib import suppress
from pathlib import Path

from pipeline.common.git import TRANSFER_SECONDS, git, hide_secrets, try_git
from stages.common.errors import UserError

FOLDER = "refs/reprise/elsewhere"
STATE, RESULT = "state", "result"
KEY_LENGTH = 40
# An answer that lists some refs, and moves no data.
ASK_SECONDS = 60.0
# Keys whose refs are of no more use, until origin has let go of them: the result lies here whole,
# or, with LEFT in the file, the run was cancelled and had not ended yet.
TAKEN, LEFT = Path(".reprise/elsewhere/taken"), "left"
_KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")


def ref_of(key: str, kind: str) -> str:
    """The ref of a run's state or result. Raises UserError for what is no key."""
    if not _KEY.fullmatch(key):
        raise UserError(f"'{key}' is no key of a run: 40 digits and letters from a to f")
    return f"{FOLDER}/{key}/{kind}"


def push_ref(folder: Path, commit: str, ref: str) -> None:
    """Put `commit` on a private ref of origin, whatever was there.

    Raises UserError with what git says.
    """
    # No hook of a person's: DVC's own would push every output there is.
    arguments = ["--quiet", "--no-verify", "--force", "origin", f"{commit}:{ref}"]
    done = try_git(folder, "push", *arguments, seconds=TRANSFER_SECONDS)
    if done.returncode != 0:
        said = hide_secrets(done.stderr.strip())
        lines = "".join(f"\n  {line}" for line in said.splitlines()[-8:])
        raise UserError(f"origin does not take {ref}:{lines}")


def find_refs(folder: Path, key: str) -> dict[str, str]:
    """The refs of a run that origin has, by kind, with their commits."""
    pattern = f"{FOLDER}/{key}/*"
    listed = git(folder, "ls-remote", "--quiet", "origin", pattern, seconds=ASK_SECONDS)
    pairs = [line.split("\t") for line in listed.splitlines()]
    return {name.rpartition("/")[2]: commit for commit, name in pairs}


def fetch_ref(folder: Path, ref: str) -> str:
    """Fetch a private ref of origin, and nothing else; its commit, which no ref here keeps."""
    arguments = ["--quiet", "--no-tags", "--no-write-fetch-head", "--refmap=", "origin"]
    git(folder, "fetch", *arguments, f"+{ref}:{ref}", seconds=TRANSFER_SECONDS)
    commit = git(folder, "rev-parse", "--verify", f"{ref}^{{commit}}")
    git(folder, "update-ref", "-d", ref)
    return commit


def remove_refs(folder: Path, key: str) -> bool:
    """Remove a run's refs from origin; False when it does not let us."""
    found = find_refs(folder, key)
    if not found:
        return True
    wanted = [f":{ref_of(key, kind)}" for kind in sorted(found)]
    arguments = ["--quiet", "--no-verify", "origin", *wanted]
    done = try_git(folder, "push", *arguments, seconds=ASK_SECONDS)
    return done.returncode == 0


def note_taken(folder: Path, key: str, why: str = "") -> None:
    """Keep in mind that a run's refs are of no more use: this process may be killed before they go.

    Raises OSError.
    """
    (folder / TAKEN).mkdir(parents=True, exist_ok=True)
    (folder / TAKEN / key).write_text(why, encoding="utf-8")


def remove_taken(folder: Path) -> list[str]:
    """Remove the refs that are of no more use; the keys that origin does not let go of.

    Where it is out of reach the next call tries again.
    """
    left = []
    for path in sorted((folder / TAKEN).glob("*")):
        remove = remove_useless if path.read_text(encoding="utf-8") == LEFT else remove_refs
        with suppress(UserError):
            if _KEY.fullmatch(path.name) and not remove(folder, path.name):
                left.append(path.name)
            path.unlink(missing_ok=True)
    return left


def remove_useless(folder: Path, key: str) -> bool:
    """Remove a run's refs, but for a result: the next run of its state takes that.

    False when origin does not let us. Raises UserError.
    """
    return RESULT in find_refs(folder, key) or remove_refs(folder, key)
