"""Files and folders that `dvc.lock` knows by their hash, found in git's history."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.common.git import ForeignFolderError, try_git_bytes

# All commits that have touched a file may be many.
SEARCH_SECONDS = 600.0


@dataclass(frozen=True)
class Locked:
    """The entry of `dvc.lock` for a path: its hash, and what rules most candidates out cheaply."""

    path: str
    md5: str
    size: int | None
    nfiles: int | None


@dataclass
class History:
    """Git's objects, each read once. Works in the current folder, which may be below git's root."""

    # Says of a path whether DVC leaves it out of a folder (.dvcignore).
    is_ignored: Callable[[str], bool]
    # Where to look first: nearly always it is HEAD, and a long history takes its time.
    heads: tuple[str, ...] = ("HEAD",)
    _contents: dict[str, bytes] = field(default_factory=dict)
    _prefix: str | None = None

    def find(self, locked: Locked) -> dict[str, bytes] | None:
        """The files of the locked version by path, or None when no commit holds it."""
        find = self._find_folder if locked.md5.endswith(".dir") else self._find_file
        return find(locked)

    def _find_file(self, locked: Locked) -> dict[str, bytes] | None:
        kind = "blob" if locked.size is None else f"blob {locked.size}"
        for blob in self._objects_at(locked.path, kind):
            content = self._read(blob)
            if hashlib.md5(content).hexdigest() == locked.md5:
                return {locked.path: content}
        return None

    def _find_folder(self, locked: Locked) -> dict[str, bytes] | None:
        for tree in self._objects_at(locked.path, "tree"):
            listed = self._list(tree, locked.path)
            sizes = [size for _, _, size in listed]
            if locked.nfiles not in (None, len(sizes)) or locked.size not in (None, sum(sizes)):
                continue
            files = {path: self._read(blob) for path, blob, _ in listed}
            if folder_md5(locked.path, files) == locked.md5:
                return files
        return None

    def _objects_at(self, path: str, kind: str) -> Iterable[str]:
        """The different versions of `path` that commits hold, those of `heads` first."""
        if self._prefix is None:
            self._prefix = _git("rev-parse", "--show-prefix").decode().strip()
        seen: set[str] = set()
        whole = f"{self._prefix}{path}"
        for commits in (list(self.heads), None):
            if commits is None:
                listed = _git("rev-list", "--all", "HEAD", "--full-history", "--", path)
                commits = listed.decode().split()
            request = "".join(f"{commit}:{whole}\n" for commit in commits)
            found = _git("cat-file", "--batch-check", stdin=request.encode())
            for line in found.decode(errors="replace").splitlines():
                name, _, rest = line.partition(" ")
                if f"{rest} ".startswith(f"{kind} ") and name not in seen:
                    seen.add(name)
                    yield name

    def _list(self, tree: str, path: str) -> list[tuple[str, str, int]]:
        listed = _git("ls-tree", "--full-tree", "-r", "-l", "-z", tree)
        files = []
        for entry in filter(None, listed.decode().split("\0")):
            head, _, name = entry.partition("\t")
            _, kind, blob, size = head.split()
            file = f"{path}/{name}"
            if kind == "blob" and not self.is_ignored(file):
                files.append((file, blob, int(size)))
        return files

    def _read(self, blob: str) -> bytes:
        if blob not in self._contents:
            self._contents[blob] = _git("cat-file", "blob", blob)
        return self._contents[blob]


def folder_md5(path: str, files: dict[str, bytes]) -> str:
    """DVC's hash of a folder: that of the list of its files and their hashes."""
    listing = [
        {"md5": hashlib.md5(content).hexdigest(), "relpath": name.removeprefix(f"{path}/")}
        for name, content in files.items()
    ]
    listing.sort(key=lambda entry: entry["relpath"])
    return f"{hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()}.dir"


def _git(*arguments: str, stdin: bytes = b"") -> bytes:
    """The output of git; nothing where it has none, such as outside a repository."""
    if shutil.which("git") is None:
        return b""
    try:
        done = try_git_bytes(Path.cwd(), *arguments, stdin=stdin, seconds=SEARCH_SECONDS)
    except ForeignFolderError:
        return b""  # a plan needs no git
    return done.stdout if done.returncode == 0 else b""
