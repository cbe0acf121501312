"""Finds in the code of the zoo what no audit hook sees: the environment, the clock, native readers.

A model, loss, schedule or dataset that depends on one of these gives another result tomorrow, and
no stage would run again.
"""

import ast
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from stages.common.errors import Problem, UserError

ZOO = Path("stages/zoo")
_ENVIRONMENT = ("environ", "environb", "getenv", "getenvb")
_CLOCK = ("time", "datetime", "uuid", "secrets")
# They open a file in C or Rust, of which Python tells no hook.
_READERS = (
    "safe_open",
    "load_file",
    "load_model",
    "from_file",
    "load_library",
    "read_file",
    "read_image",
    "scan_csv",
    "scan_parquet",
    "scan_ipc",
    "scan_ndjson",
    "read_csv",
    "read_parquet",
    "read_ipc",
    "read_ndjson",
    "read_table",
    "memory_map",
)


def check_zoo() -> None:
    """Look at every file of the zoo that this process has imported. Raises UserError."""
    root = Path.cwd()
    files = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
    # As texts: a process has thousands of modules.
    inside = [Path(file) for file in files if file.startswith(f"{root / ZOO}{os.sep}")]
    stop_if_outside(sorted(file.relative_to(root) for file in inside))


def stop_if_outside(files: Iterable[Path]) -> None:
    """Raise UserError with all that these files of the zoo take from outside."""
    if problems := [problem for file in files for problem in find_outside(file)]:
        raise UserError(*problems)


def find_outside(file: Path) -> Iterator[Problem]:
    """Yield what `file` takes from outside, each with its line and what to do instead."""
    for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file))):
        if (found := _find_call(node)) is not None:
            what, remedy = found
            line = getattr(node, "lineno", 0)
            yield Problem(f"{file}:{line}: {what}, and no stage would run again\n  {remedy}")


def imported(node: ast.AST) -> list[str]:
    """The first part of each module that an absolute import names; nothing for other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [(node.module or "").split(".")[0]]
    return []


def _find_call(node: ast.AST) -> tuple[str, str] | None:
    for name in imported(node):
        if name in _CLOCK:
            return (
                f"'{name}' gives another value each time",
                "randomness is torch's, seeded by 'seed' of params.yaml; measure time outside",
            )
    inner = [a.name for a in node.names] if isinstance(node, ast.ImportFrom) else []
    if isinstance(node, ast.Attribute):
        inner = [node.attr]
    for name in inner:
        if name in _ENVIRONMENT:
            return (
                f"'{name}' reads the environment, which may be another tomorrow",
                "make it an argument, with its value in params.yaml",
            )
    if isinstance(node, ast.Call):
        function = node.func
        called = function.attr if isinstance(function, ast.Attribute) else ""
        called = function.id if isinstance(function, ast.Name) else called
        if called in _READERS:
            return (
                f"'{called}' opens a file where DVC can't see it: it may be another tomorrow",
                "read it with Python's own open(), torch.load or numpy.load, and declare it in "
                "dvc.yaml under 'deps:' of each stage that runs this code",
            )
    return None
