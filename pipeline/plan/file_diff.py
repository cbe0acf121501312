"""The difference of a file or folder from the version that `dvc.lock` knows.

Python whose syntax tree is the same runs the same: a change of comments or formatting alone.
"""

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.plan.git_history import History, Locked


@dataclass(frozen=True)
class FileChange:
    """One file that differs; `kind` is changed, comments, added or removed."""

    path: str
    kind: str


def compare(locked: Locked, now: dict[str, str], history: History) -> list[FileChange] | None:
    """The files that differ between `locked` and `now` (the files of the same path with their MD5).

    None when git's history does not hold the locked version.
    """
    before = history.find(locked)
    if before is None:
        return None
    changes = [FileChange(path, "removed") for path in before.keys() - now.keys()]
    changes += [FileChange(path, "added") for path in now.keys() - before.keys()]
    for path in before.keys() & now.keys():
        if hashlib.md5(before[path]).hexdigest() != now[path]:
            content = Path(path).read_bytes()
            # What was hashed must be what is compared: somebody may be editing it.
            same = hashlib.md5(content).hexdigest() == now[path] and path.endswith(".py")
            same = same and same_code(before[path], content)
            changes.append(FileChange(path, "comments" if same else "changed"))
    return sorted(changes, key=lambda change: change.path)


def same_code(before: bytes, after: bytes) -> bool:
    """Check that both have one syntax tree; docstrings count, as code can read them."""
    try:
        return ast.dump(ast.parse(before)) == ast.dump(ast.parse(after))
    except (SyntaxError, ValueError):
        return False
