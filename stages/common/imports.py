"""The code that a stage ran is the code that `dvc.yaml` declares for it."""

import sys
from pathlib import Path

from stages.common.errors import UserError
from stages.common.params import declared_deps


def check_imports(stage: str) -> None:
    """Stop when this process has loaded a file of the project that `stage` does not declare.

    A change of that file would not rerun the stage. Raises UserError.
    """
    root = Path.cwd()
    deps = [root / dep for dep in declared_deps(stage)]
    undeclared = []
    for module in list(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "/")
        # Only our own packages: the environment may lie inside the repository.
        if not any(folder in file.parents for folder in (root / "stages", root / "pipeline")):
            continue
        if not any(file == dep or dep in file.parents for dep in deps):
            undeclared.append(str(file.relative_to(root)))
    if undeclared:
        raise UserError(
            f"the stage '{stage}' runs code that dvc.yaml does not list among its deps: "
            + ", ".join(sorted(undeclared))
            + "\n  run 'reprise deps', then again: a change of that code would rerun nothing"
        )
