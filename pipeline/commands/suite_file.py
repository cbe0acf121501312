"""Edits of a suite of expectations: one rule more or less, and every other line as it stands."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.params.template import flow_map
from stages.common.errors import UserError
from stages.common.yamlfile import read_yaml

Rule = Mapping[str, Any]


def suite_text(title: str, rules: Iterable[Rule]) -> str:
    """A new suite: a line for each rule, below a title."""
    return (
        f"# {title}: a draft. `type` and the arguments are\n"
        "# Great Expectations' own; severity: critical stops the stage prepare, warning is told.\n"
        + "".join(map(_line, rules))
    )


def read_rules(path: Path) -> list[Any]:
    """The rules of a suite as they stand. Raises UserError for what is no list."""
    rules = read_yaml(path)
    if rules is None:
        return []
    if not isinstance(rules, list):
        raise UserError(f"{path}:1: a suite is a list of expectations, not {type(rules).__name__}")
    return rules


def with_rule(path: Path, rule: Rule) -> str:
    """The text of the suite with a rule at its end."""
    rules, text = read_rules(path), path.read_text(encoding="utf-8")
    if not rules:
        # '[]' is no list that a line could be added to.
        comments = [line for line in text.splitlines() if line.lstrip().startswith("#")]
        text = "".join(f"{line}\n" for line in comments)
    elif not text.endswith("\n"):
        text += "\n"
    indent = "" if not rules else " " * _tree(path).lc.col
    return _checked(path, f"{text}{indent}{_line(rule)}", [*rules, dict(rule)])


def without_rule(path: Path, place: int) -> str:
    """The text of the suite without a rule, and without the comment right above it."""
    rules = read_rules(path)
    if not 0 <= place < len(rules):
        many = f"0 to {len(rules) - 1}" if rules else "none"
        raise UserError(f"{path} has no rule {place}: there are {many} (reprise expect list)")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    starts = [_tree(path).lc.item(number)[0] for number in range(len(rules))]
    first = starts[place]
    # The comment on top of the file is about all of it.
    while place > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    stop = starts[place + 1] if place + 1 < len(rules) else len(lines)
    while stop > starts[place] + 1 and _is_between(lines[stop - 1]):
        stop -= 1
    rest = [*rules[:place], *rules[place + 1 :]]
    text = "".join(lines[:first] + lines[stop:])
    return _checked(path, text if rest else f"{text.rstrip()}\n[]\n".lstrip(), rest)


def _is_between(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _checked(path: Path, text: str, rules: list[Any]) -> str:
    """The text, if these are its rules, else the suite anew: one of brackets, or of many lines."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        is_right = (YAML(typ="safe").load(text) or []) == rules
    except YAMLError:
        is_right = False
    if is_right:
        return text
    tree = _tree(path)
    while len(tree) > len(rules):
        tree.pop(next((n for n, rule in enumerate(rules) if tree[n] != rule), len(rules)))
    tree.extend(flow_map(dict(rule)) for rule in rules[len(tree) :])
    return _dump(tree)


def _tree(path: Path) -> Any:
    """The suite with its comments, and the places of its rules."""
    from ruamel.yaml import YAML

    return YAML().load(path.read_text(encoding="utf-8"))


def _line(rule: Rule) -> str:
    return _dump([flow_map(dict(rule))])


def _dump(tree: Any) -> str:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096
    yaml.preserve_quotes = True
    text = io.StringIO()
    yaml.dump(tree, text)
    return text.getvalue()
