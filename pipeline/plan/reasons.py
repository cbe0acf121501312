"""The reasons why a stage is not fresh, in terms of what its user edits."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipeline.plan.file_diff import compare
from pipeline.plan.git_history import History, Locked
from pipeline.plan.working_tree import Content, Contents
from stages.common.config import get_path
from stages.common.errors import shorten
from stages.common.params import DVC_FILE, TEMPLATE, read_tree
from stages.common.yamlfile import read_yaml

# The file of the root that stands for no file, where DVC wants one.
NO_PATH = "None"
# Of more changed files in one folder, the folder is named with their number.
MAX_FILES = 8


@dataclass(frozen=True)
class Reason:
    """One reason.

    `kind` is parameter, null, file, command, upstream, output, never run, always or comments;
    `what` is the key, path or stage; `old` and `new` are values, commands, or MD5 of content.
    """

    kind: str
    what: str
    old: str | None = None
    new: str | None = None


def describe(reason: Reason) -> str:
    """The reason in a few words."""
    what, old, new = reason.what, reason.old, reason.new
    if reason.kind == "parameter":
        return f"{what}: {_value(old)} → {_value(new)}"
    if reason.kind == "null":
        return f"{what} is null now"
    if reason.kind == "file":
        if old is None and new is None:
            return f"{what} is missing"
        return f"{what} {'is new' if old is None else 'is gone' if new is None else 'changed'}"
    if reason.kind == "comments":
        return f"only comments: {what}"
    if reason.kind == "command":
        if old is None:
            return "command changed"
        before, after = _differing_words(old, str(new))
        return f"command: {_value(before)} → {_value(after)}"
    if reason.kind == "upstream":
        return f"upstream {what}"
    if reason.kind == "output":
        return f"{what} is {new}"
    return {"never run": "never run", "always": "always runs"}[reason.kind]


def _differing_words(old: str, new: str) -> tuple[str, str]:
    """The words of both commands, less those that they begin and end with in common."""
    before, after = old.split(), new.split()
    shortest = min(len(before), len(after))
    pairs = list(zip(before, after, strict=False))
    start = next((i for i, (a, b) in enumerate(pairs) if a != b), shortest)
    ends = list(zip(before[start:][::-1], after[start:][::-1], strict=False))
    end = next((i for i, (a, b) in enumerate(ends) if a != b), len(ends))
    cut = [" ".join(words[start : len(words) - end]) or "nothing" for words in (before, after)]
    return cut[0], cut[1]


def _value(text: str | None) -> str:
    return "none" if text is None else shorten(" ".join(text.split()))


def null_keys(stage: str) -> list[str]:
    """The keys of `params.yaml` whose path is null, where DVC takes the file `NO_PATH`."""
    entry = (read_yaml(DVC_FILE).get("stages") or {}).get(stage) or {}
    tree, found = read_tree(), []
    for dep in entry.get("deps") or []:
        key = TEMPLATE.match(dep)
        with suppress(KeyError):
            if key is not None and get_path(tree, key[1]) is None:
                found.append(key[1])
    return found


def differing_params(dep: Any, values: Mapping[str, Any]) -> list[Reason]:
    """The keys whose values differ from those that `dvc.lock` has, down to the single value."""
    from dvc.dependency import ParamsDependency

    default = ParamsDependency.DEFAULT_PARAMS_FILE
    before = dep.hash_info.value if dep.hash_info else {}
    prefix = "" if dep.def_path == default else f"{dep.def_path}:"
    keys = dep.params or [*values, *before]
    found = []
    for key in dict.fromkeys(keys):
        found += _differences(f"{prefix}{key}", before.get(key, _NONE), values.get(key, _NONE))
    return found


_NONE = object()


def _differences(key: str, old: Any, new: Any) -> list[Reason]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = dict.fromkeys([*new, *old])
        return [
            reason
            for name in names
            for reason in _differences(f"{key}.{name}", old.get(name, _NONE), new.get(name, _NONE))
        ]
    if isinstance(new, tuple):
        new = list(new)  # as DVC compares those of a Python file
    # True is 1 to Python, as it is to DVC; what is found here is what DVC would find.
    return (
        []
        if old is not _NONE and old == new
        else [Reason("parameter", key, _text(old), _text(new))]
    )


def _text(value: object) -> str | None:
    if value is _NONE:
        return None
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(str(_text(inner)) for inner in value) + "]"
    return str(value)


@dataclass
class Reasons:
    """Looks into files that differ; each pair of versions once, however many stages use it."""

    repo: Any
    contents: Contents
    history: History = field(init=False)
    # Paths whose locked version no commit holds.
    lost: set[str] = field(default_factory=set)
    _known: dict[tuple[str, str], list[Reason]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.history = History(self.repo.dvcignore.is_ignored_file)

    def of_file(self, dep: Any, content: Content) -> list[Reason]:
        """The changes in a file or folder, by file where git has the locked version."""
        key = (dep.fs_path, dep.hash_info.value)
        if key not in self._known:
            self._known[key] = self._explain(dep, content)
        return self._known[key]

    def _explain(self, dep: Any, content: Content) -> list[Reason]:
        shown, old, new = str(dep), dep.hash_info.value, content.hash.value
        locked = Locked(shown, old, dep.meta.size, dep.meta.nfiles)
        now = self.contents.files(dep.fs_path, shown, dep.hash_name)
        # A folder that became a file, or the other way round, has no files in common.
        changes = compare(locked, now, self.history) if dep.hash_name == "md5" else None
        if changes is None:
            self.lost.add(shown)
        if not changes:
            return [Reason("file", shown, old, new)]
        if len(changes) > MAX_FILES and any(change.kind != "comments" for change in changes):
            return [Reason("file", f"{shown} ({len(changes)} files)", old, new)]
        reasons = []
        for change in changes:
            kind = "comments" if change.kind == "comments" else "file"
            before = None if change.kind == "added" else old
            after = None if change.kind == "removed" else new
            reasons.append(Reason(kind, change.path, before, after))
        return reasons
