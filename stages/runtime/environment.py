"""A stage runs under the libraries and with the code that `dvc.lock` will record, or not at all."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stages.common.errors import UserError
from stages.common.params import VERSIONS, declared, declared_deps
from stages.common.yamlfile import read_yaml
from stages.runtime.installed import check_installed


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
    was installed, or of code from elsewhere: see `check_installed`. Raises UserError.
    """
    check_installed()
    root = f"{Path.cwd()}{os.sep}"
    deps = tuple(f"{root}{dep}" for dep in declared_deps(stage))
    # The environment may lie inside the repository.
    libraries = tuple(f"{p}{os.sep}" for p in sys.path if p.endswith("-packages"))
    problems = []
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if not file.startswith(root) or file.startswith((f"{sys.prefix}{os.sep}", *libraries)):
            continue
        if any(file == dep or file.startswith(f"{dep}{os.sep}") for dep in deps):
            continue
        path = Path(file).relative_to(root)
        remedy = "'reprise deps' lists it, or says why not"
        if path.parts[0] not in ("stages", "pipeline"):
            remedy = "move it into stages/, import it from there, and run 'reprise deps'"
        problems.append(
            f"the stage '{stage}' runs {path} (the module '{name}'), which dvc.yaml does not list "
            f"among its deps: a change there would rerun nothing\n  {remedy}"
        )
    if problems:
        raise UserError(*dict.fromkeys(problems))
