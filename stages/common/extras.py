"""Libraries by their names, and those that only some projects need: extras of `pyproject.toml`.

The file that imports one says its version in `LIBRARIES`, by the module's name. So a stage depends
on that version by depending on the file, and who does not use the file need not have the library.
`reprise deps` holds the version to the one in `constraints.txt`.
"""

import functools
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version

from stages.common.errors import Problem, UserError


def check_extra(what: str, libraries: Mapping[str, str], key: str) -> None:
    """Stop unless `libraries` are installed in the versions that the code was tried with.

    `what` needs them, the value of `key`. Raises UserError that names what installs them.
    """
    found = {name: _installed(name) for name in libraries}
    wrong = [name for name, needed in libraries.items() if found[name] != needed]
    if wrong:
        needed = " and ".join(f"{name} {libraries[name]}" for name in wrong)
        here = " and ".join(found[name] or f"no {name}" for name in wrong)
        command = f"pip install --constraint constraints.txt {' '.join(libraries)}"
        raise UserError(
            Problem(f"{what} needs {needed}; here is {here}\n  install  {command}", key)
        )


def _installed(name: str) -> str:
    """The version of a library; '' where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def canonical(name: str) -> str:
    """A library's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def module_libraries() -> Mapping[str, list[str]]:
    """The installed libraries by the modules that they bring; a second to find out."""
    return packages_distributions()
