"""Libraries that only some projects need: an extra of `pyproject.toml`, which a file asks for.

The file that imports one says its version in `LIBRARIES`, by the module's name. So a stage depends
on that version by depending on the file, and who does not use the file need not have the library.
`reprise deps` holds the version to the one in `constraints.txt`.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

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
