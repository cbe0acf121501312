"""YAML 1.2 as DVC reads it (`1e-3` is a number), with friendly errors and line numbers."""

import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

from stages.common.errors import Problem, UserError, quoted

# With what aliases repeat. The largest `dvc.lock` has no aliases, and no such bound.
MAX_VALUES = 100_000
MAX_DEPTH = 64


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as plain dicts, lists and scalars.

    Raises UserError, with the line, when the file is missing or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"the file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> Any:
    """The content of `text`, which stands in `path`. Raises UserError when it is no YAML."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        # A copy: whoever changes it changes no other's.
        return copy.deepcopy(_parse(text, path))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = None if mark is None else mark.line + 1
        message = f"{path}:{line}: not valid YAML: {error.problem or error.context}"
        raise UserError(message) from None
    except (YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        # A date that there is not, a number of thousands of digits, brackets in brackets.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path}: not valid YAML: {reason}") from None


# A stage looks at dvc.yaml and params.yaml thirty times, to see an edit at once.
@lru_cache(maxsize=8)
def _parse(text: str, path: Path) -> Any:
    from ruamel.yaml import YAML

    _check_aliases(text, path)
    tree = YAML(typ="safe").load(text)
    _check_depth(tree)
    return tree


def _check_depth(tree: Any) -> None:
    """Raise RecursionError where those who go through `tree` would, and have no file to name."""
    level, depth = [tree], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise RecursionError
        inner = [
            n.values() if isinstance(n, dict) else n for n in level if isinstance(n, dict | list)
        ]
        level = [node for nodes in inner for node in nodes]


def _check_aliases(text: str, path: Path) -> None:
    """Stop where aliases (`*name`) stand for more values than a file of parameters can hold.

    A few lines that name each other can stand for billions. Raises UserError.
    """
    if "&" not in text or "*" not in text:
        return
    from ruamel.yaml import YAML

    sizes: dict[int, int] = {}

    def count(node: Any) -> int:
        if id(node) not in sizes:
            # One that holds itself has no end.
            sizes[id(node)] = MAX_VALUES + 1
            inner = node.value if isinstance(node.value, list) else []
            parts = [
                part for item in inner for part in (item if isinstance(item, tuple) else [item])
            ]
            sizes[id(node)] = 1 + sum(map(count, parts))
        return sizes[id(node)]

    root = YAML(typ="safe", pure=True).compose(text)
    if root is not None and count(root) > MAX_VALUES:
        raise UserError(
            f"{path}: its aliases ('*name') stand for more than {MAX_VALUES:,} values\n"
            "  edit     write out what is meant, without '&' and '*'"
        )


def yaml_text(name: object) -> str:
    """A key or a class as YAML, JSON and CSV files have it: of a boolean `true` or `false`."""
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
                name = next((key for key in node if yaml_text(key) == name), name)
                found = name in node
            if found:
                line = node.lc.data[name][0] + 1
                node = node[name]
                rest = ".".join(parts[size:])
                break
        else:
            break
    shown = not rest and not isinstance(node, CommentedMap | CommentedSeq)
    if not shown:
        return line, None
    return line, "null" if node is None else quoted(node) if isinstance(node, str) else str(node)


def with_location(problem: Problem) -> Problem:
    """`problem` with the line of its key looked up in its file, and the value that stands there."""
    if problem.key is None or problem.line is not None:
        return problem
    from dataclasses import replace

    line, value = find_place(Path(problem.file), problem.key)
    return replace(problem, line=line, value=value if problem.value is None else problem.value)
