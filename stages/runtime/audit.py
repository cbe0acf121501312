"""Ends a stage that reads what DVC does not know of: a change there would rerun nothing.

Python tells an audit hook of each file that is opened, each socket that connects and each program
that is started (PEP 578). A file must be declared in `dvc.yaml`, or belong to Python, its
libraries or the system; a socket stays on this machine. Libraries that open files in C or Rust
tell nobody: `outside.py` looks for their calls in the code of the zoo.
"""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from stages.common.errors import UserError

# What every stage may open in the repository: what DVC itself tracks of it, and what is kept there.
_OPEN_TO_ALL = (
    "params.yaml",
    "dvc.yaml",
    "dvc.lock",
    ".dvcignore",
    "stages/versions.yaml",
    ".dvc",
    ".git",
    ".reprise",
    "data/.writing",
    "data/tensorboard",
)
# Folders of the system, without which there is no stage anyway.
_SYSTEM = (
    *("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/run", "/sbin", "/sys"),
    *("/usr", "/var", "/nix", "/snap", "/System", "/Library", "/private/var"),
    "/tmp",  # noqa: S108  (read, not written)
)
_CONNECTS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_STARTS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.spawn")
_LOOPBACK = ("127.", "::1", "localhost", "::ffff:127.")
_MAX_SHOWN = 10


class Audit:
    """A record of what one process of a stage opens.

    Final. It takes notes until it knows what is declared.
    """

    def __init__(self) -> None:
        self._root = os.getcwd() + os.sep
        self._python = _python_folders()
        self._elsewhere = _other_folders()
        self._stage = ""
        self._declared: tuple[str, ...] | None = None
        self._find_change: Callable[[str], str] = lambda _name: ""
        self._looking: set[str] = set()
        self._early: list[tuple[str, str]] = []
        self._problems: list[str] = []
        self._resting = False
        self._one_machine = os.environ.get("PET_NNODES", "1") == "1"

    def start(
        self, stage: str, declared: Iterable[Path], find_input_change: Callable[[str], str]
    ) -> None:
        """Refuse from now on all but `declared`; raises UserError for what was opened before.

        `find_input_change` says how a declared file, by its path from the root, is no longer
        what it was when the stage began; nothing where it is the same.
        """
        named = [os.path.join(self._root, path) for path in (*map(str, declared), *_OPEN_TO_ALL)]
        self._stage, self._find_change = stage, find_input_change
        self._declared = tuple(os.path.normpath(path) for path in named)
        for path, place in self._early:
            if not self._is_declared(path):
                self._refuse_undeclared(path, place)
        self._early.clear()
        self.stop_if_refused()

    def rest(self) -> None:
        """See nothing from now on. A hook can't be removed, and the stage has ended."""
        self._resting = True

    def stop_if_refused(self) -> None:
        """Raise UserError with all that was refused: a library may have caught the first error."""
        if self._problems:
            shown = list(dict.fromkeys(self._problems))
            more = [f"and {len(shown) - _MAX_SHOWN} more"] if len(shown) > _MAX_SHOWN else []
            raise UserError(*shown[:_MAX_SHOWN], *more)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an event of Python's; an error that is raised here ends what was begun."""
        if event == "open":
            if not self._resting and isinstance(arguments[0], str | bytes):
                self._see_file(os.fsdecode(arguments[0]))
        elif event in _CONNECTS:
            if not self._resting and self._declared is not None and self._one_machine:
                self._see_address(arguments[-1])
        elif event in _STARTS and not self._resting and self._declared is not None:
            self._see_program(str(arguments[0]))

    def _see_file(self, path: str) -> None:
        path = os.path.normpath(os.path.join(self._root, path))
        if path.startswith(self._python):
            return
        if path.endswith(".pyc") and "__pycache__" in path:
            path = importlib.util.source_from_cache(path)
        if not path.startswith(self._root) and path.startswith(self._elsewhere):
            return
        known = len(self._problems)
        if self._declared is None:
            self._early.append((path, self._find_place()))
        elif not self._is_declared(path):
            self._refuse_undeclared(path, self._find_place())
        elif path.startswith(self._root) and path not in self._looking:
            # To look at it may open it.
            self._looking.add(path)
            changed = self._find_change(path[len(self._root) :])
            self._looking.discard(path)
            self._problems += [changed] if changed else []
        if len(self._problems) > known:
            raise UserError(self._problems[-1])

    def _is_declared(self, path: str) -> bool:
        assert self._declared is not None
        return any(path == name or path.startswith(name + os.sep) for name in self._declared)

    def _refuse_undeclared(self, path: str, place: str) -> None:
        # A folder is listed, not read; and libraries try names of files that are not there.
        if not os.path.isfile(path):
            return
        real = os.path.realpath(path)
        inside = path.startswith(self._root) or real.startswith(self._root)
        if real.startswith(self._python) or self._is_declared(real):
            return
        if not inside and real.startswith(self._elsewhere):
            return
        name = os.path.relpath(real, self._root) if inside else path
        if name.startswith("stages/zoo/") and name.endswith(".py"):
            remedy = (
                "a file of the zoo stands alone: what several share belongs in "
                "stages/model/layers.py, or is copied"
            )
        elif name.startswith("stages/") and name.endswith(".py"):
            remedy = "'reprise check' says what may be imported there, 'reprise deps' declares it"
        elif name.endswith(".py"):
            remedy = "move that code into stages/, import it from there, and run 'reprise deps'"
        elif place.startswith("stages/zoo/"):
            remedy = (
                f"add '- {name}' in dvc.yaml to the 'deps:' of every stage that runs this code: of "
                "a model build, tune, train, evaluate and infer, of a dataset tune and train"
            )
        else:
            remedy = f"add '- {name}' in dvc.yaml to the 'deps:' of {self._stage}"
        self._problems.append(
            f"{place} opens {name}, which dvc.yaml does not declare for the stage "
            f"'{self._stage}': a change there would rerun nothing\n  {remedy}"
        )

    def _see_address(self, address: Any) -> None:
        # What is no pair of host and port is a socket of this machine.
        if not isinstance(address, tuple) or str(address[0]).startswith(_LOOPBACK):
            return
        self._problems.append(
            f"{self._find_place()} connects to {address[0]}: what comes from the network may be "
            f"another tomorrow, and nothing would rerun\n  bring it in once, with 'dvc import-url' "
            f"into data/raw, and declare the file in dvc.yaml under stages.{self._stage}.deps"
        )
        raise UserError(self._problems[-1])

    def _see_program(self, program: str) -> None:
        place = self._find_place()
        if place.startswith("stages/zoo/"):
            self._problems.append(
                f"{place} starts {program}: what another program reads is seen by nobody, and a "
                "change there would rerun nothing\n  do it in Python, or in a stage of its own"
            )
            raise UserError(self._problems[-1])

    def _find_place(self) -> str:
        """The nearest line of the repository's own code that is being run, as `file:line`."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            file = os.path.normpath(os.path.join(self._root, frame.f_code.co_filename))
            own = file.startswith(self._root) and not file.startswith(self._python)
            # Such as `<frozen importlib._bootstrap>`, which is no file.
            own = own and not frame.f_code.co_filename.startswith("<")
            if own and file != __file__:
                return f"{file[len(self._root) :]}:{frame.f_lineno}"
            frame = frame.f_back
        return "a library"


# The one of this process: a hook stays until the process ends.
_audits: list[Audit] = []


def audit_process() -> Audit:
    """The audit of this process, which begins with the first call."""
    if not _audits:
        _audits.append(Audit())
        sys.addaudithook(_audits[0].hook)
    return _audits[0]


def _python_folders() -> tuple[str, ...]:
    """The folders of the interpreter and its libraries.

    The environment may lie in the repository.
    """
    folders = {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)}
    folders |= {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    # What pip keeps of a project that is installed for editing.
    folders |= {str(path) for path in Path.cwd().glob("*.egg-info")}
    return tuple(sorted(folder + os.sep for folder in folders))


def _other_folders() -> tuple[str, ...]:
    """The machine's folders that may be read: system, temporary files, settings and caches."""
    folders = [*_SYSTEM, tempfile.gettempdir(), os.path.realpath(tempfile.gettempdir())]
    folders += [v for name, v in os.environ.items() if name.startswith("XDG_") and v]
    return (*(folder.rstrip(os.sep) + os.sep for folder in folders), os.path.expanduser("~/."))
