"""The content of the working folder now, by DVC's hashes, each path and file read once.

DVC asks for the same code file and parses the same `params.yaml` again for every stage.
"""

from dataclasses import dataclass, field
from typing import Any

from stages.common.errors import UserError


@dataclass(frozen=True)
class Content:
    """A path's content: DVC's hash of it, its size and kind, and the files if it is a folder."""

    hash: Any
    meta: Any
    tree: Any = None


@dataclass
class Contents:
    """The contents of the working folder of `repo`."""

    repo: Any
    _paths: dict[tuple[str, str], Content | None] = field(default_factory=dict)
    _files: dict[str, Any] = field(default_factory=dict)

    def at(self, path: str, hash_name: str = "md5") -> Content | None:
        """The content of a file or folder, None when there is none."""
        key = (path, hash_name)
        if key not in self._paths:
            self._paths[key] = self._hash(path, hash_name)
        return self._paths[key]

    def _hash(self, path: str, hash_name: str) -> Content | None:
        from dvc_data.hashfile.build import build

        repo = self.repo
        odb = repo.cache.local if hash_name == "md5" else repo.cache.legacy
        try:
            _, meta, made = build(
                odb, path, repo.fs, hash_name, ignore=repo.dvcignore, dry_run=True
            )
        except (FileNotFoundError, NotADirectoryError):
            # Not there, or removed by the stage that is about to write it.
            return None
        return Content(made.hash_info, meta, made if made.hash_info.isdir else None)

    def files(self, path: str, shown: str, hash_name: str = "md5") -> dict[str, str]:
        """The files at `path` with their MD5, named as below `shown`."""
        content = self.at(path, hash_name)
        if content is None:
            return {}
        if content.tree is None:
            return {shown: content.hash.value}
        return {"/".join((shown, *key)): info.value for key, _, info in content.tree}

    def params(self, dependency: Any) -> dict[str, Any]:
        """The values of a params dependency: its keys as DVC finds them, or the whole file.

        Raises UserError when the file is not there or holds no mapping.
        """
        path = dependency.fs_path
        if path not in self._files:
            from dvc.utils.serialize import load_path

            if not dependency.fs.isfile(path):
                raise UserError(
                    f"the file {dependency} does not exist; dvc.yaml takes params of it"
                )
            self._files[path] = load_path(path, dependency.fs)
        whole = self._files[path]
        if not isinstance(whole, dict):
            raise UserError(f"{dependency} must hold keys and values")
        if not dependency.params:
            return dict(whole)
        return {key: value for key in dependency.params for value in _lookup(whole, key)}


def _lookup(tree: dict[str, Any], key: str) -> list[Any]:
    """The value of a dotted key as a list of one, or an empty list."""
    value: Any = tree
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            break
        value = value[part]
    else:
        return [value]
    # Patterns, numbers, missing keys: DVC's own way, which goes through the whole file.
    import dpath

    try:
        return [dpath.get(tree, key, separator=".")]
    except KeyError:
        return []
