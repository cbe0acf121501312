"""The code that a module runs: the closure of its imports, from the syntax trees, file by file.

Nothing is imported, so a stage's libraries cost no time here. Imports inside functions count,
parent packages count, relative ones are resolved.
"""

import ast
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.common.errors import Problem, UserError
from stages.common.extras import canonical, module_libraries

PROJECT = ("stages", "pipeline")
# The places that import by a name from params.yaml; what they can reach is the zoo.
LOADER = Path("stages/model/model.py")
DATASET_LOADER = Path("stages/training/data/zoo_datasets.py")
OBJECTIVE_LOADER = Path("stages/training/optim/objective.py")
# Imports any file of a folder by its name; all of them count. For the type checker alone these
# files import what they are handed (columns, tensors): whoever hands it in declares that library.
KIND_LOADER, KINDS = Path("stages/features/kind.py"), Path("stages/features/kinds")
# Import the files of a folder of their own, and are in no stage's closure.
LISTING = (
    *(Path("pipeline/doctor/cause.py"), Path("pipeline/doctor/examine.py")),
    Path("stages/tools/diagnose/__main__.py"),
)
# Carry work to other processes, which give the same bytes, and bytes from object storage, which DVC
# knows by their version there. They are extras, so no stage may depend on their versions.
CARRIERS = ("distributed", "fsspec")
DYNAMIC = ("import_module", "__import__", "run_module", "run_path")
# A library that another one's module stands for.
BEHIND = {"torch.utils.tensorboard": "tensorboard"}


@dataclass(frozen=True)
class Import:
    """An import statement: the dotted name, and where it stands."""

    name: str
    file: Path
    line: int


@dataclass(frozen=True)
class Closure:
    """The project's files that a module runs, sorted, and the imports of libraries in them."""

    files: tuple[Path, ...]
    libraries: tuple[Import, ...]


def find_closure(*modules: str) -> Closure:
    """The closure of `modules` of the project in the current folder, themselves included.

    Raises UserError for an import that leads nowhere or whose name is not a constant.
    """
    files: set[Path] = set()
    libraries: list[Import] = []
    waiting = [Import(module, Path(), 0) for module in modules]
    while waiting:
        found = waiting.pop()
        for file in _files_of(found):
            if file in files:
                continue
            files.add(file)
            if file == KIND_LOADER:
                names = (".".join(each.with_suffix("").parts) for each in KINDS.glob("*.py"))
                waiting += [Import(name, file, 0) for name in names]
            for statement in read_imports(file):
                if statement.name.split(".")[0] in PROJECT:
                    waiting.append(statement)
                else:
                    libraries.append(statement)
    return Closure(tuple(sorted(files)), tuple(libraries))


def _files_of(found: Import) -> list[Path]:
    """The file of a module and the `__init__` files above it."""
    parts = found.name.split(".")
    parents = [Path(*parts[:size], "__init__.py") for size in range(1, len(parts))]
    path = Path(*parts)
    own = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not own.is_file():
        where = f"{found.file}:{found.line}: " if found.line else ""
        raise UserError(f"{where}there is no module '{found.name}'")
    return [file for file in (*parents, own) if file.is_file()]


def read_imports(file: Path) -> Iterator[Import]:
    """Every import in a file, absolute; of `from a import b`, `a.b` when that is a module.

    Raises UserError for syntax errors and for dynamic imports whose name is not a constant.
    """
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        raise UserError(f"{file}:{error.lineno}: {error.msg}") from None
    typed = file != KIND_LOADER and KINDS not in file.parents
    for node in _nodes(tree, typed=typed):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, file, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, file)
            yield Import(base, file, node.lineno)
            for alias in node.names:
                inner = Path(*base.split("."), alias.name)
                if inner.with_suffix(".py").is_file() or (inner / "__init__.py").is_file():
                    yield Import(f"{base}.{alias.name}", file, node.lineno)
        elif isinstance(node, ast.Call) and _called(node) in DYNAMIC:
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Import(name.value, file, node.lineno)
            elif file not in (*LISTING, LOADER, DATASET_LOADER, OBJECTIVE_LOADER, KIND_LOADER):
                raise UserError(
                    f"{file}:{node.lineno}: an import whose name is not a constant: what it runs "
                    f"can't be among a stage's dependencies; only {LOADER}, {DATASET_LOADER} and "
                    f"{OBJECTIVE_LOADER} may, for the zoo, and {KIND_LOADER}"
                )


def _nodes(tree: ast.AST, *, typed: bool) -> Iterator[ast.AST]:
    """Every node of a tree; those under `if TYPE_CHECKING:` only where `typed`."""
    waiting = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        if not typed and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _absolute(node: ast.ImportFrom, file: Path) -> str:
    if node.level == 0:
        return node.module or ""
    package = file.parent.parts[: len(file.parent.parts) - node.level + 1]
    return ".".join((*package, *((node.module,) if node.module else ())))


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def find_extras(file: Path) -> Mapping[str, str]:
    """The versions of libraries that a file asks for by itself: its `LIBRARIES`, by module.

    They are extras: the file is the dependency, so that who does not use it need not have them.
    """
    content = file.read_bytes()
    for node in ast.parse(content).body if b"LIBRARIES" in content else ():
        names = [t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)]
        if isinstance(node, ast.Assign) and names == ["LIBRARIES"]:
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    return {}


def check_extras(files: Iterable[Path], pinned: Mapping[str, str]) -> None:
    """Raise UserError where a file asks for another version than `pinned` (library to version)."""
    problems = [
        Problem(
            f"{file}: LIBRARIES has {name} {version}, and constraints.txt "
            f"has {pinned.get(canonical(name), 'none')}: make both the same"
        )
        for file in files
        for name, version in find_extras(file).items()
        if pinned.get(canonical(name)) != version
    ]
    if problems:
        raise UserError(*problems)


def name_libraries(imports: tuple[Import, ...], pinned: dict[str, str]) -> set[str]:
    """The libraries that `imports` belong to, by canonical name; Python's own are left out.

    Raises UserError for those that `pinned` (library to version) does not hold.
    """
    distributions = module_libraries()
    names: set[str] = set()
    problems: dict[str, Problem] = {}
    for statement in imports:
        first = statement.name.split(".")[0]
        if first in sys.stdlib_module_names or first in CARRIERS:
            continue
        if first in find_extras(statement.file):
            continue
        # A namespace such as `ruamel` belongs to several: the one that the import spells.
        holders = {canonical(name) for name in distributions.get(first, [first])}
        spelt = {name for name in holders if f"{canonical(statement.name)}-".startswith(f"{name}-")}
        chosen = spelt or holders
        behind = {BEHIND[name] for name in BEHIND if f"{statement.name}.".startswith(f"{name}.")}
        for name in chosen | behind:
            if name in pinned:
                names.add(name)
            else:
                place = f"{statement.file}:{statement.line}"
                problems[name] = Problem(
                    f"{place}: imports '{first}', but constraints.txt does not pin '{name}'; add "
                    "it there and to pyproject.toml, then 'make setup'"
                )
    if problems:
        raise UserError(*problems.values())
    return names
