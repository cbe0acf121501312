"""All that a process computes with: the project's code, the libraries, the files that it sees.

A worker of a cluster may be a process on another machine, started days ago in another clone.
"""

import functools
import hashlib
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import stages
from stages.common.errors import UserError
from stages.common.params import VERSIONS, declared, declared_deps

# They carry functions and results from process to process.
CARRIERS = ("cloudpickle", "dask", "distributed")
CODE = "stages"
DIGEST_LETTERS = 12


@dataclass(frozen=True)
class Stage:
    """The files and folders of code of a stage, and its libraries by their names."""

    code: tuple[str, ...]
    libraries: tuple[str, ...]


@dataclass(frozen=True)
class Process:
    """A process: the digest of its code, the clone that it is of, and what else it computes with.

    `versions` are those of libraries by their names, and the kind of machine.
    """

    digest: str
    folder: str
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Origin:
    """The process that gives away the parts of a stage.

    `content` stands in the file `mark` of the stage's folder: who reads it there sees the folder.
    """

    stage: Stage
    process: Process
    mark: Path
    content: str


def describe_process(stage: Stage) -> Process:
    """This process, as far as `stage` depends on it."""
    found = {"machine": platform.machine(), "python": platform.python_version()}
    for name in stage.libraries:
        try:
            # A build tag (`2.13.0+cpu`) says which machine, not which code.
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            found[name] = "not installed"
    return Process(code_digest(stage.code), str(_home()), tuple(found.items()))


def describe_stage(name: str) -> Stage:
    """The code and the libraries that a stage declares in `dvc.yaml`."""
    code = (path.as_posix() for path in declared_deps(name) if path.parts[0] == CODE)
    return Stage(tuple(code), tuple(sorted({*declared(name, VERSIONS), *CARRIERS})))


@functools.cache
def code_digest(code: tuple[str, ...]) -> str:
    """The digest of files and folders of code, as they were when this process first asked.

    It keeps what it has loaded: an edit since then is another digest to others, and not to it.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in code:
        root = _home() / path
        for file in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            digest.update(file.relative_to(_home()).as_posix().encode() + b"\0")
            digest.update(_file_digest(file))
    return digest.hexdigest()[:DIGEST_LETTERS]


@functools.cache
def _file_digest(file: Path) -> bytes:
    content = file.read_bytes() if file.is_file() else b""
    return hashlib.blake2b(content, digest_size=16).digest()


def _home() -> Path:
    return Path(stages.__path__[0]).resolve().parent


def differences(here: Process, there: Process) -> list[str]:
    """The differences of `there` from `here`, a line each; both are named."""
    lines = []
    if here.digest != there.digest:
        lines.append(
            f"its code in {there.folder} is {there.digest}, and here it is {here.digest}: start it "
            "anew in a clone at this commit, with the same edits"
        )
    others = dict(there.versions)
    for name, own in here.versions:
        if (other := others.get(name)) != own:
            lines.append(f"its {name} is {other}, and here it is {own}")
    return lines


def look(stage: Stage, mark: Path) -> tuple[Process, str]:
    """A worker's own description, and what it finds in a file of the stage's folder."""
    content = mark.read_text(encoding="utf-8") if mark.is_file() else ""
    return describe_process(stage), content


def find_faults(origin: Origin, there: Process, content: str) -> list[str]:
    """The reasons, a line each, for which what `look` found would not compute as `origin` does."""
    faults = differences(origin.process, there)
    if content != origin.content:
        faults.append(
            f"it does not see {origin.mark.parent}, where the parts lie: workers need a disk that "
            "all share, under the same path"
        )
    return faults


@functools.lru_cache(maxsize=8)
def check_here(origin: Origin) -> None:
    """Raise UserError where this process would not compute as `origin` does; once looked at."""
    if faults := find_faults(origin, *look(origin.stage, origin.mark)):
        raise UserError(
            f"a worker that came late (process {os.getpid()} of {platform.node()}) would not "
            "compute what this process does:\n  " + "\n  ".join(faults)
        )
