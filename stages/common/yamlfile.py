"""YAML 1.2 as DVC reads it (`1e-3` is a number), with friendly errors and line numbers."""

from pathlib import Path
from typing import Any

from stages.common.errors import Problem, UserError


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as plain dicts, lists and scalars.

    Raises UserError, with the line, when the file is missing or is no YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"the file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    try:
        return YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = None if mark is None else mark.line + 1
        message = f"{path}:{line}: not valid YAML: {error.problem or error.context}"
        raise UserError(message) from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None


def spell(name: object) -> str:
    """A key as YAML writes it: `true` of a boolean, the digits of a number."""
    return str(name).lower() if isinstance(name, bool) else str(name)


def find_place(path: Path, key: str) -> tuple[int | None, str | None]:
    """The line (from 1) of the dotted `key` in a YAML file, and its value if that is one word.

    Of a key that is not there, the line of its nearest parent.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.error import YAMLError

    try:
        node = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError):
        return None, None
    line: int | None = None
    rest = key
    while rest and isinstance(node, CommentedMap | CommentedSeq):
        # A key may hold dots itself (`tune.space` is keyed by parameter path): longest first.
        parts = rest.split(".")
        for size in range(len(parts), 0, -1):
            name: str | int = ".".join(parts[:size])
            if isinstance(node, CommentedSeq):
                name = int(name) if str(name).isdigit() and int(name) < len(node) else -1
                found = name != -1
            else:
                name = next((key for key in node if spell(key) == name), name)
                found = name in node
            if found:
                line = node.lc.data[name][0] + 1
                node = node[name]
                rest = ".".join(parts[size:])
                break
        else:
            break
    shown = not rest and not isinstance(node, CommentedMap | CommentedSeq)
    return line, "null" if shown and node is None else str(node) if shown else None


def with_place(problem: Problem) -> Problem:
    """`problem` with the line of its key looked up in its file, and the value that stands there."""
    if problem.key is None or problem.line is not None:
        return problem
    from dataclasses import replace

    line, value = find_place(Path(problem.file), problem.key)
    return replace(problem, line=line, value=value if problem.value is None else problem.value)
