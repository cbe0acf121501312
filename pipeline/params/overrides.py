"""Values of `params.yaml` set from outside: `reprise run --set train.epochs=3`.

Nothing is written unless the whole file is right with them.
"""

import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.common.atomic import write_whole
from pipeline.params.check import find_problems
from pipeline.params.template import flow_map
from stages.common.errors import Problem, UserError, shorten, wrong_name
from stages.common.params import PARAMS
from stages.common.yamlfile import read_yaml


def parse_overrides(settings: Sequence[str]) -> dict[str, Any]:
    """`train.epochs=3` as {'train.epochs': 3}; the value is read as YAML.

    Raises UserError for what is no `key=value`.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    overrides: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set takes key=value, such as train.epochs=3, not '{setting}'")
        try:
            overrides[key.strip()] = YAML(typ="safe").load(text)
        except (YAMLError, ValueError, RecursionError):
            raise UserError(f"--set {setting}: '{text}' is not valid YAML") from None
    return overrides


def apply_overrides_to_file(overrides: Mapping[str, Any], source: str = "--set") -> list[str]:
    """Set values in `params.yaml` by their dotted keys; return the difference, line by line.

    Comments and layout stay, in the form that DVC's own writer keeps (`dvc exp run -S`): null is
    nothing, and a list stands below its key. `source` is where the user said it, for messages.
    Raises UserError, with nothing written, for keys that do not exist and for values that are
    not right where they would stand.
    """
    before, after = preview_overrides(overrides, source)
    if after != before:
        write_whole(PARAMS, after)
    names = (f"{PARAMS} before", f"{PARAMS} after")
    return list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="", n=0)
    )


def preview_overrides(overrides: Mapping[str, Any], source: str) -> tuple[str, str]:
    """The text of `params.yaml` now, and with the overrides. Raises UserError as above."""
    from ruamel.yaml import YAML

    before = PARAMS.read_text(encoding="utf-8") if PARAMS.exists() else ""
    read_yaml(PARAMS)  # says what is wrong with a file that is no YAML
    yaml = YAML()
    yaml.width = 4096
    yaml.preserve_quotes = True
    tree = yaml.load(before)
    unknown = [problem for key in overrides if (problem := _set(tree, key, overrides[key], source))]
    if unknown:
        raise UserError(*unknown)
    text = io.StringIO()
    yaml.dump(tree, text)
    problems = find_problems(YAML(typ="safe").load(text.getvalue()))
    if problems:
        raise UserError(*(_placed(problem, overrides, source) for problem in problems))
    return before, text.getvalue()


def _set(tree: Any, key: str, value: object, source: str) -> Problem | None:
    """Set one value in place, or say why its key leads nowhere.

    The last part of a key may be new: an argument that a name takes. The check of the whole
    file says whether it does.
    """
    parents, _, last = key.rpartition(".")
    node, at = tree, ""
    for part in filter(None, parents.split(".")):
        if not isinstance(node, Mapping) or part not in node:
            known = [f"{at}{name}" for name in node] if isinstance(node, Mapping) else []
            problem = wrong_name(f"there is no key '{at}{part}'", f"{at}{part}", known, key)
            return replace(problem, value=shorten(value), file=source)
        node, at = node[part], f"{at}{part}."
    if not isinstance(node, Mapping):
        return Problem(f"'{parents}' has no keys of its own", key, shorten(value), file=source)
    node[last] = flow_map(value)  # type: ignore[index]
    return None


def _placed(problem: Problem, overrides: Mapping[str, Any], source: str) -> Problem:
    """The problem, told of where the user said it when it is about an override."""
    about = problem.key or ""
    is_own = any(
        f"{about}.".startswith(f"{key}.") or f"{key}.".startswith(f"{about}.") for key in overrides
    )
    return replace(problem, file=source) if about and is_own else problem
