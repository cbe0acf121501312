"""What a process computes with: the project's code, the libraries, the files that it sees.

A worker of a cluster may be a process on another machine, started days ago in another clone.
"""

import functools
import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import stages
from stages.common.params import VERSIONS, declared

# They carry functions and results from process to process.
CARRIERS = ("cloudpickle", "dask", "distributed")
DIGEST_LETTERS = 12


@dataclass(frozen=True)
class Process:
    """A process: the digest of its code, where that lies, and the versions of libraries."""

    digest: str
    folder: str
    versions: dict[str, str]


def describe_process(libraries: Sequence[str]) -> Process:
    """This process, with the versions of `libraries` and of Python."""
    found = {"python": platform.python_version()}
    for name in libraries:
        try:
            # A build tag (`2.13.0+cpu`) says which machine, not which code.
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            found[name] = "not installed"
    return Process(code_digest(), str(_code_folder()), found)


def libraries_of(stage: str) -> list[str]:
    """The libraries by which two processes of `stage` must agree."""
    return sorted({*declared(stage, VERSIONS), *CARRIERS})


@functools.cache
def code_digest() -> str:
    """The digest of the files of `stages/`, as they were when this process first asked.

    It keeps what it has loaded: an edit since then is another digest to others, and not to it.
    """
    folder = _code_folder()
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.blake2b(file.read_bytes()).digest())
    return digest.hexdigest()[:DIGEST_LETTERS]


def _code_folder() -> Path:
    return Path(stages.__path__[0]).resolve()


def differences(here: Process, there: Process) -> list[str]:
    """What of `there` is another than `here`, a line each; both are named."""
    lines = []
    if here.digest != there.digest:
        lines.append(
            f"its code {there.folder} is {there.digest}, and here it is {here.digest}: start it "
            "anew in a clone at this commit, with the same edits"
        )
    for name, own in here.versions.items():
        if (other := there.versions.get(name)) != own:
            lines.append(f"its {name} is {other}, and here it is {own}")
    return lines
