"""Library versions are dependencies: a stage runs only under those that `dvc.lock` will record."""

from importlib.metadata import PackageNotFoundError, version

from stages.common.errors import UserError
from stages.common.params import VERSIONS, declared
from stages.common.yamlfile import read_yaml


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
