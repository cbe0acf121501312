"""The libraries that a process has loaded are those that were installed, file by file.

`dvc.lock` names libraries by their versions. A file of one that was edited, a library that was
built anew under the same version, and code from PYTHONPATH or from the folder of a `.pth` file
would change results behind that; a stage stops at them. A file is compared with the hash that its
library's RECORD keeps of it: once per set-up, from then on by size and times alone. Looked at are
the modules, and on Linux the native libraries that are loaded from where libraries are installed.

Not seen are files that a library reads but does not load, the system's own libraries, and libraries
that were installed without a RECORD (Debian's packages). That a library was built anew is known
where this environment has run a stage with the one before.
"""

import base64
import csv
import hashlib
import json
import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stages.common.errors import UserError

# What was found of each file. It lies in the environment, so that all clones share the work; in
# the clone where the environment can't be written.
NOTE = "reprise-installed.json"
OWN_NOTE = Path(".reprise/installed.json")
MAPS = Path("/proc/self/maps")
# What an environment brings along without a RECORD, for every interpreter to import at its start.
UNOWNED = ("_virtualenv.py", "sitecustomize.py", "usercustomize.py")
# What a person has started, and what multiprocessing calls it.
STARTED = ("__main__", "__mp_main__")
DEBUGGERS = ("debugpy", "pydev")
MAX_SHOWN = 5

Stat = list[int]
# A library's name and version, the file's hash, and its size and times when it was hashed.
Note = dict[str, tuple[str, str, str, Stat]]


@dataclass(frozen=True)
class Owner:
    """The library that has installed a file, and the hash in its RECORD, '' where it has none."""

    library: str
    version: str
    digest: str


def check_installed() -> None:
    """Stop when this process has loaded library code that is not as it was installed.

    Raises UserError that names the files, how they got in, and what puts it right.
    """
    homes = _homes()
    paths, foreign = _look_at_modules(homes)
    if foreign:
        raise UserError(_say_foreign(foreign))
    paths |= _mapped_files(homes)
    note = _read_note()
    changed: dict[str, Stat] = {}
    for path in paths:
        stat = _stat(path)
        if path not in note or note[path][3] != stat:
            changed[path] = stat
    if changed:
        _write_note(_compare(changed, note, homes))


def check_noted() -> None:
    """Stop when a file that a process of this environment has loaded is not what it was.

    Before anything runs, so that a fresh `dvc status` is not taken for more than it is. Raises
    UserError as above.
    """
    note, homes = _read_note(), _homes()
    # An environment that was copied brings along what was noted where it lay before.
    here = [path for path in note if path.startswith(tuple(homes))]
    changed = {path: stat for path in here if (stat := _stat(path)) not in ([], note[path][3])}
    if changed:
        _write_note(_compare(changed, note, homes))


def _homes() -> list[str]:
    """The folders that libraries are installed into: of this environment, and of this user."""
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    folders += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [f"{folder}{os.sep}" for folder in dict.fromkeys(folders)]


def _look_at_modules(homes: list[str]) -> tuple[set[str], dict[str, str]]:
    """The files of libraries among the modules; the files of no known origin, by module."""
    known = [
        f"{sysconfig.get_path('stdlib')}{os.sep}",
        f"{sysconfig.get_config_var('DESTSHARED')}{os.sep}",
        # Whether a file of the project is declared is not asked here.
        f"{Path.cwd()}{os.sep}",
        # torch writes the code that it compiles for a model into modules, and loads them.
        os.environ.get("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/torchinductor_"),
    ]
    paths, foreign = set(), {}
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        # A module that was made by another one has no file, or one without a folder.
        if name in STARTED or not isinstance(path, str) or not path.startswith(os.sep):
            continue
        if path.startswith(tuple(homes)):
            # What a finder of pip's finds is judged by its own place.
            if not name.startswith("__editable__"):
                paths.add(path)
            continue
        start = next((start for start in known if path.startswith(start)), None)
        inside = path if start is None else path[len(start) :]
        # The interpreter's own libraries lie below its modules; an environment does not have them.
        strange = start is None or "site-packages" in inside or "dist-packages" in inside
        if strange and not any(word in path for word in DEBUGGERS):
            foreign[name] = path
    return paths, foreign


def _mapped_files(homes: list[str]) -> set[str]:
    """The native libraries that are loaded, with those that no module stands for."""
    if not MAPS.exists():
        return set()
    resolved = {f"{Path(home).resolve()}{os.sep}": home for home in homes}
    paths = set()
    for line in MAPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        path = line[line.find(os.sep) :]
        for start, home in resolved.items():
            # Data is mapped as well, but never to be run.
            if path.startswith(start) and "x" in line.split(" ", 2)[1]:
                paths.add(home + path[len(start) :])
    return paths


def _stat(path: str) -> Stat:
    """Size and times; the last one is the kernel's own, which no program can set back."""
    try:
        found = os.stat(path)  # noqa: PTH116  # thousands of them
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _compare(changed: dict[str, Stat], note: Note, homes: list[str]) -> Note:
    """The new note of changed files, after a look at their content. Raises UserError."""
    owners, complete = _read_owners(homes, changed)
    found: Note = {}
    edited: dict[str, Owner | None] = {}
    rebuilt: dict[str, Owner] = {}
    for path, stat in sorted(changed.items()):
        owner = owners.get(path)
        if owner is None or not owner.digest:
            # Without it there is nothing to compare with; see above.
            if complete and owner is None and Path(path).name not in UNOWNED:
                edited[path] = None
            continue
        digest = _sha256(Path(path))
        before = note.get(path)
        if digest != owner.digest:
            edited[path] = owner
        elif before is not None and before[1] == owner.version and before[2] != digest:
            rebuilt[path] = owner
        found[path] = (owner.library, owner.version, digest, stat)
    if edited:
        raise UserError(_say_edited(edited))
    if rebuilt:
        raise UserError(_say_rebuilt(rebuilt))
    return found


def _sha256(path: Path) -> str:
    """The hash as RECORD writes it."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return "gone"
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _read_owners(homes: list[str], paths: Iterable[str]) -> tuple[dict[str, Owner], bool]:
    """The owners of files among `paths`, and of others; whether every library has a RECORD."""
    owners: dict[str, Owner] = {}
    complete = True
    for home in homes:
        tops = {path[len(home) :].partition(os.sep)[0] for path in paths if path.startswith(home)}
        for info in sorted(Path(home).glob("*.*-info")):
            record = info / "RECORD"
            if not record.is_file():
                complete = False
                continue
            library, _, version = info.name.removesuffix(".dist-info").partition("-")
            text = record.read_text(encoding="utf-8")
            # There are hundreds of thousands of lines in all.
            if not any(top in text for top in tops):
                continue
            for name, digest, *_ in filter(None, csv.reader(text.splitlines())):
                owners[home + name] = Owner(library, version, digest.removeprefix("sha256="))
    return owners, complete


def _say_edited(edited: dict[str, Owner | None]) -> str:
    owned = {f"{owner.library}=={owner.version}" for owner in edited.values() if owner}
    lines = ["libraries are not as they were installed; a change in them reruns nothing"]
    lines += _list(
        f"{path}: not as in {owner.library} {owner.version}" if owner else f"{path}: of no library"
        for path, owner in edited.items()
    )
    if owned:
        names = " ".join(sorted(owned))
        pip = f"{sys.executable} -m pip install --force-reinstall --no-deps"
        lines.append(f"  to put it back: {pip} {names}")
    lines.append("  code of one's own belongs into stages/, where a change is seen")
    return "\n".join(lines)


def _say_rebuilt(rebuilt: dict[str, Owner]) -> str:
    names = sorted({f"{owner.library} {owner.version}" for owner in rebuilt.values()})
    lines = [f"another build of {', '.join(names)} than the one that results were made with"]
    lines += _list(rebuilt)
    lines.append(
        "  dvc.lock names libraries by version, and can't tell the two apart: give the new one a "
        "version of its own\n"
        f"  to take it as it is: rm {_note_path()}, then 'dvc repro --force'"
    )
    return "\n".join(lines)


def _say_foreign(foreign: dict[str, str]) -> str:
    lines = ["modules that are neither the project's, nor Python's, nor an installed library's"]
    lines += _list(f"{name}: {path}{_way_in(path)}" for name, path in sorted(foreign.items()))
    lines.append(
        "  a change there would rerun nothing: bring the code into stages/, or install it as a "
        "library (not --editable)\n  and pin it in constraints.txt"
    )
    return "\n".join(lines)


def _way_in(path: str) -> str:
    """The setting that has put a file's folder on the path of modules, in brackets."""
    for folder in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if path.startswith(f"{Path(folder).absolute()}{os.sep}"):
            return f" (PYTHONPATH={folder})"
    for home in _homes():
        for file in sorted(Path(home).glob("*.pth")):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                if line.strip() and path.startswith(f"{(Path(home) / line.strip())}{os.sep}"):
                    return f" ({file})"
    return ""


def _list(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    shown = [f"  {line}" for line in every[:MAX_SHOWN]]
    rest = len(every) - len(shown)
    return [*shown, f"  and {rest} more"] if rest else shown


def _note_path() -> Path:
    return Path(sys.prefix, NOTE) if os.access(sys.prefix, os.W_OK) else OWN_NOTE


def _read_note() -> Note:
    try:
        note: Note = json.loads(_note_path().read_bytes())
    except (FileNotFoundError, ValueError):
        return {}  # made anew; a full disk may have cut it short
    return note if isinstance(note, dict) else {}


def _write_note(found: Note) -> None:
    path = _note_path()
    # That it can't be written is no failure of the stage: the next one hashes again.
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        # Others may have added theirs meanwhile.
        text = json.dumps({**_read_note(), **found})
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
