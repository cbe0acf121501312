"""Code of one's own (`stages/zoo`): what it raises is told with its file and line, on one screen.

Whatever such code raises, in a process of a stage or a worker of one, passes through a frame of its
file. So the place is found wherever the error is caught, and needs no torch.
"""

import inspect
import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from stages.common.errors import Problem, UserError

ZOO = "stages/zoo/"
PROJECT = ("stages/", "pipeline/")
HOW = "docs/own_code.md"
MAX_REASON = 300

# A file from the repository's root, and a line of it.
Place = tuple[str, int]


@contextmanager
def own_errors(what: str, at: object = None) -> Iterator[None]:
    """Turn what code of one's own raises within into a UserError: `what`, the error, its line.

    `at` is the class or function that is called: where it can't be called so, no frame is its own.
    All else that is raised stays what it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        mistake = to_user_error(error, what, at)
        if mistake is None:
            raise
        raise mistake from error


def to_user_error(error: Exception, what: str, at: object = None) -> UserError | None:
    """The UserError for what code of one's own has raised; None: it was other code."""
    if is_of_memory(error):
        return None
    frames = [(_project_file(frame.filename), frame.lineno or 1) for frame in _frames(error)]
    own = [number for number, (file, _) in enumerate(frames) if file.startswith(ZOO)]
    place = _place_of_syntax(error) or (frames[own[-1]] if own else find_place(at))
    if place is None:
        return None
    reason = _reason(error)
    behind = [frame for frame in frames[own[-1] + 1 :] if frame[0]] if own else []
    if behind:
        # What it has called of the project: a layer of `stages/model/layers.py`, say.
        reason += f"\n  raised   {behind[-1][0]}:{behind[-1][1]}"
    return UserError(at_line(f"{what}: {reason}" if what else reason, place))


def at_line(message: str, place: Place) -> Problem:
    """A problem whose remedy is at a line of code, which is shown."""
    file, line = place
    linecache.checkcache(file)
    return Problem(message, file=file, line=line, value=linecache.getline(file, line).strip())


def find_place(thing: object) -> Place | None:
    """The place at which a class or function of one's own begins; None: it is not one's own."""
    try:
        file = inspect.getsourcefile(thing)  # type: ignore[arg-type]
        _, line = inspect.getsourcelines(thing)  # type: ignore[arg-type]
    except (TypeError, OSError):
        return None
    own_file = _project_file(file or "")
    return (own_file, max(1, line)) if own_file.startswith(ZOO) else None


def problem_of(message: str, thing: object, otherwise: Problem) -> UserError:
    """The error that is mended where `thing` begins; if that is not one's own, `otherwise`."""
    place = find_place(thing)
    return UserError(otherwise if place is None else at_line(message, place))


def require(module: ModuleType, what: str, **needed: type) -> None:
    """Stop unless a file of the zoo has the classes `needed`, each a subclass of the class given.

    Raises UserError that names the file.
    """
    problems = []
    file = _project_file(module.__file__ or "") or f"{module.__name__.replace('.', '/')}.py"
    for name, base in needed.items():
        found: Any = getattr(module, name, None)
        if found is None:
            message = f"{what} has no class {name}: each has one ({HOW})"
            problems.append(at_line(message, (file, 1)))
        elif base is not object and not (inspect.isclass(found) and issubclass(found, base)):
            message = f"{name} of {what} must be a subclass of {base.__name__} ({HOW})"
            problems.append(at_line(message, find_place(found) or (file, 1)))
    if problems:
        raise UserError(*problems)


def is_of_memory(error: BaseException) -> bool:
    """Check whether memory was full, wherever that was noticed."""
    full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return full or "can't allocate memory" in str(error)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _project_file(file: str) -> str:
    """A file of the project from the repository's root; empty: it is another's."""
    path, root = Path(file), Path.cwd()
    if path.is_relative_to(root):
        path = path.relative_to(root)
    name = path.as_posix()
    return name if name.startswith(PROJECT) else ""


def _place_of_syntax(error: BaseException) -> Place | None:
    if not isinstance(error, SyntaxError) or not error.filename:
        return None
    file = _project_file(error.filename)
    return (file, error.lineno or 1) if file else None


def _reason(error: BaseException) -> str:
    """The error on a line, as Python ends a traceback with it."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        name = error.name.split(".")[0]
        if name != "stages":
            return f"there is no library '{name}' here; {HOW} says how a model gets one"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    lines = text.strip().splitlines()
    shown = lines[0] if lines else ""
    shown = shown if len(shown) <= MAX_REASON else f"{shown[: MAX_REASON - 1]}…"
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__
