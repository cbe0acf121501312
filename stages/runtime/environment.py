"""A stage runs under the libraries and with the code that `dvc.lock` will record, or not at all."""

import ast
import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from stages.common.errors import UserError
from stages.common.extras import canonical, module_libraries
from stages.common.params import VERSIONS, declared, declared_deps
from stages.common.yamlfile import read_yaml
from stages.runtime.installed import check_installed
from stages.runtime.outside import ZOO, imported

_REMEDY = "'reprise deps' lists it, or says why not"


def check_versions(stage: str) -> None:
    """Stop unless the libraries that `stage` declares are installed as `versions.yaml` says.

    A build tag (`2.13.0+cpu`) is not part of the comparison: it says which machine, not which
    code. Raises UserError.
    """
    pinned = read_yaml(VERSIONS)
    wrong: list[str] = []
    for library in declared(stage, VERSIONS):
        try:
            installed = version(library).split("+")[0]
        except PackageNotFoundError:
            installed = "not installed"
        if installed != str(pinned.get(library)):
            wrong.append(f"{library}: {installed}, but {VERSIONS} says {pinned.get(library)}")
    if wrong:
        raise UserError(
            "this environment is not the one that the results are recorded for\n  "
            + "\n  ".join(wrong)
            + "\n  run 'make setup' for the pinned libraries; to move to another version, change "
            "constraints.txt, then 'make setup' and 'reprise deps'"
        )


def check_imports(stage: str) -> None:
    """Stop when this process has loaded a file of the project that `stage` does not declare.

    A change of that file would not rerun the stage. Nor would one of a library that is not as it
    was installed, or of code from elsewhere: see `check_installed`; or of a library that a file of
    the zoo imports and the stage does not declare. Raises UserError.
    """
    check_installed()
    root = f"{Path.cwd()}{os.sep}"
    deps = tuple(f"{root}{dep}" for dep in declared_deps(stage))
    # The environment may lie inside the repository.
    libraries = tuple(f"{p}{os.sep}" for p in sys.path if p.endswith("-packages"))
    problems: list[str] = []
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if not file.startswith(root) or file.startswith((f"{sys.prefix}{os.sep}", *libraries)):
            continue
        path = Path(file).relative_to(root)
        if ZOO in path.parents:
            problems += _find_undeclared_libraries(stage, module, path)
        if any(file == dep or file.startswith(f"{dep}{os.sep}") for dep in deps):
            continue
        remedy = _REMEDY
        if path.parts[0] not in ("stages", "pipeline"):
            remedy = "move it into stages/, import it from there, and run 'reprise deps'"
        problems.append(
            f"the stage '{stage}' runs {path} (the module '{name}'), which dvc.yaml does not list "
            f"among its deps: a change there would rerun nothing\n  {remedy}"
        )
    if problems:
        raise UserError(*dict.fromkeys(problems))


def _find_undeclared_libraries(stage: str, module: ModuleType, path: Path) -> Iterator[str]:
    """Tell of each library that a file of the zoo imports and `stage` does not declare."""
    declared_here = {canonical(library) for library in declared(stage, VERSIONS)}
    # Files of the project that are not declared are told of above.
    known = {"stages", "pipeline", *sys.stdlib_module_names, *getattr(module, "LIBRARIES", {})}
    for node in ast.walk(ast.parse(path.read_bytes())):
        for name in imported(node):
            if name in known or canonical(name) in declared_here:
                continue
            libraries = {canonical(each) for each in module_libraries().get(name, ())}
            if libraries and not libraries & declared_here:
                yield (
                    f"{path}:{getattr(node, 'lineno', 0)}: imports '{name}', whose version "
                    f"dvc.yaml does not list for the stage '{stage}': another one would rerun "
                    f"nothing\n  {_REMEDY}"
                )
