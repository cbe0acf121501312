"""The inputs of a stage as they are when it begins, and what of them is another at its end.

DVC looks at them after the command has ended. So an edit while a stage runs would be written into
`dvc.lock` beside the outputs of what stood there before, and called fresh from then on.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from stages.common.config import get_path
from stages.common.errors import UserError
from stages.common.files import md5, read_json
from stages.common.params import (
    DVC_FILE,
    PARAMS,
    VERSIONS,
    declared,
    declared_deps,
    declared_objects,
    stage_entry,
    to_plain,
)
from stages.common.yamlfile import find_place, read_yaml
from stages.runtime.object_storage import (
    Listing,
    StoredObject,
    find_differences,
    list_again,
    list_objects,
)

# The record of each stage that runs: its processes compare with it what they read.
RUNNING = Path(".reprise/running")
# Code and small files are known by their content, larger ones by size, time and inode alone:
# to hash them would take as long as to read them.
SMALL_BYTES = 1 << 20
HASHED_BYTES = 64 << 20
IGNORED = Path(".dvcignore")
MAX_SHOWN = 10


@dataclass(frozen=True)
class FileState:
    """A file at one moment: what `stat` says, and the MD5 of its bytes where it was taken."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    digest: str | None


@dataclass(frozen=True)
class Snapshot:
    """All that a stage depends on: its entry in `dvc.yaml`, paths, values and files.

    The paths are those of the entry with `${…}` filled in; values are by file and key, files by
    path. `listings` are what stands in object storage.
    """

    stage: str
    seconds: float
    entry: dict[str, Any]
    deps: list[str]
    params: dict[str, dict[str, Any]]
    files: dict[str, FileState]
    listings: list[Listing] = field(default_factory=list)


@dataclass(frozen=True)
class InputChange:
    """One dependency that is another; `mixed`: the stage may have read some of either."""

    message: str
    mixed: bool


def take_snapshot(stage: str) -> Snapshot:
    """The declared inputs of `stage` as they are now.

    Raises UserError as `read_yaml` and `list_objects` do.
    """
    params: dict[str, dict[str, Any]] = {}
    for file in (PARAMS, VERSIONS):
        tree = read_yaml(file)
        params[str(file)] = {key: _value(tree, key) for key in declared(stage, file)}
    files: dict[str, FileState] = {}
    left = HASHED_BYTES
    deps = declared_deps(stage)
    for path in _list_files(deps):
        known = stat_file(path)
        if path.suffix == ".py" or known.size <= min(SMALL_BYTES, left):
            known = stat_file(path, md5(path))
            left -= known.size
        files[path.as_posix()] = known
    names = [dep.as_posix() for dep in deps]
    listings = [list_objects(address, key) for address, key in declared_objects(stage)]
    return Snapshot(stage, time.time(), stage_entry(stage), names, params, files, listings)


def find_input_changes(snapshot: Snapshot, *, objects: bool = True) -> list[InputChange]:
    """The dependencies in `snapshot` that have changed since.

    Without `objects` storage is not asked, which the audit of a running stage would refuse.
    """
    changes = []
    if _read(DVC_FILE, f"stages.{snapshot.stage}") != snapshot.entry:
        message = f"{DVC_FILE}: the stage '{snapshot.stage}' {_when(DVC_FILE, snapshot)}"
        changes.append(InputChange(message, mixed=False))
    for name, values in snapshot.params.items():
        file = Path(name)
        tree = _read(file)
        for key, old in values.items():
            if (new := _value(tree, key)) != old:
                changes += [InputChange(text, mixed=False) for text in _spell(file, key, old, new)]
    now = {path.as_posix(): path for path in _list_files(map(Path, snapshot.deps))}
    for name in sorted({*now, *snapshot.files}):
        path, old_state = now.get(name), snapshot.files.get(name)
        # Code is read by Python, which the audit sees. Data may be read by libraries that tell
        # nobody when: the stage may have met either.
        mixed = not name.endswith(".py")
        if path is None or old_state is None:
            verb = "was deleted" if path is None else "is new"
            changes.append(InputChange(f"{name} {verb}", mixed))
        elif not is_same(path, old_state):
            changes.append(InputChange(f"{name} {_when(path, snapshot)}", mixed))
    for old in snapshot.listings if objects else ():
        # The stage has read what it fetched when it began, and that alone.
        try:
            words = list(find_differences(old, list_again(old)))
        except UserError as error:
            # No reason to lose the work: with the same objects the next run takes it.
            words = [f"{old.address} can't be looked at: {error.problems[0].message}"]
        changes += [InputChange(text, mixed=False) for text in words]
    return changes


def find_input_change(snapshot: Snapshot, name: str) -> str:
    """The change of the file `name` since the stage began, in words.

    Nothing if it is.
    """
    old, path = snapshot.files.get(name), Path(name)
    if old is None or not path.is_file() or is_same(path, old):
        return ""
    return f"{name} {_when(path, snapshot)}, and is needed only now: the stage can't have both"


def is_same(path: Path, old: FileState) -> bool:
    """Compare a file with what it was: by `stat`, and where that differs, by its content."""
    now = stat_file(path, old.digest)
    if now == old:
        return True
    return old.digest is not None and now.size == old.size and md5(path) == old.digest


def stat_file(path: Path, digest: str | None = None) -> FileState:
    """The state of a file, with the digest that the caller knows."""
    s = path.stat()
    return FileState(s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, digest)


def name_snapshot(snapshot: Snapshot) -> str:
    """Sixteen hexadecimal digits of the values and contents; the time is no part of it.

    Files that the snapshot has no digest of are read now.
    """
    content: list[Any] = [snapshot.params, snapshot.deps]
    content += [[each.address, asdict(each)["objects"]] for each in snapshot.listings]
    content += [[name, f.digest or md5(Path(name))] for name, f in sorted(snapshot.files.items())]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def write_snapshot(snapshot: Snapshot) -> None:
    """Leave `snapshot` for the other processes of its stage."""
    RUNNING.mkdir(parents=True, exist_ok=True)
    temporary = RUNNING / f".{snapshot.stage}.json"
    temporary.write_text(json.dumps(asdict(snapshot)), encoding="utf-8")
    temporary.replace(_file_of(snapshot.stage))


def read_snapshot(stage: str) -> Snapshot | None:
    """The snapshot that the running stage has left; None where a person runs its process."""
    try:
        content = read_json(_file_of(stage))
    except FileNotFoundError:
        return None
    files = {name: FileState(**state) for name, state in content.pop("files").items()}
    listings = [_to_listing(each) for each in content.pop("listings")]
    return Snapshot(**content, files=files, listings=listings)


def remove_snapshot(stage: str) -> None:
    """Remove what `write_snapshot` has left."""
    _file_of(stage).unlink(missing_ok=True)


def _to_listing(content: Mapping[str, Any]) -> Listing:
    objects = {name: StoredObject(**each) for name, each in content["objects"].items()}
    return Listing(content["address"], content["key"], objects)


def _file_of(stage: str) -> Path:
    return RUNNING / f"{stage}.json"


def _list_files(deps: Iterable[Path]) -> Iterator[Path]:
    """Every file that DVC counts among `deps`, those in their folders included."""
    ignored = _read_ignored()
    for dep in deps:
        if not dep.is_dir():
            yield from [dep] if dep.is_file() else []
            continue
        for path in sorted(dep.rglob("*")):
            names = path.relative_to(dep).parts
            left_out = any(fnmatch(name, pattern) for name in names for pattern in ignored)
            if not left_out and path.is_file():
                yield path


def _read_ignored() -> list[str]:
    """The patterns of names in `.dvcignore`, and what Python writes while a stage runs."""
    try:
        lines = IGNORED.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    return ["__pycache__"] + [
        line.strip() for line in lines if line.strip() and not line.startswith(("#", "!"))
    ]


def _read(file: Path, key: str | None = None) -> Any:
    """The content of a YAML file, or what stands under `key`; None of what is half edited."""
    try:
        tree = read_yaml(file)
        return tree if key is None else get_path(tree, key)
    except (UserError, KeyError):
        return None


def _value(tree: object, key: str) -> Any:
    try:
        return to_plain(get_path(tree, key))
    except KeyError:
        return None


def _spell(file: Path, key: str, old: Any, new: Any) -> Iterator[str]:
    """A sentence for each value below `key` that is another."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) != new.get(name) or (name in old) != (name in new):
                yield from _spell(file, f"{key}.{name}", old.get(name), new.get(name))
        return
    line, _ = find_place(file, key)
    then, now = (json.dumps(value, ensure_ascii=False) for value in (old, new))
    yield f"{file}:{line}  {key} was {then} and is {now} now"


def _when(path: Path, snapshot: Snapshot) -> str:
    if not path.exists():
        return "was deleted"
    modified = path.stat().st_mtime
    seconds = modified - snapshot.seconds
    if seconds < 0:
        return "was replaced by an older file"
    clock = time.strftime("%H:%M:%S", time.localtime(modified))
    return f"was edited at {clock}, {seconds:.0f} s after the stage began"


def fingerprint(stage: str) -> str:
    """A short name of all that a run depends on: sixteen hexadecimal digits.

    They are of the same files, values and library versions that DVC looks at.
    """
    return name_snapshot(take_snapshot(stage))
