"""The text of a `params.yaml`: the lines of `template.yaml`, with some of its keys filled.

The template holds every key with its comment; what depends on the data is empty in it. Lines are
replaced as they stand, so that comments keep their columns and the rest keeps its bytes.
"""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stages.common.errors import UserError, wrong_name
from stages.common.yamlfile import read_yaml

TEMPLATE_FILE = Path(__file__).with_name("template.yaml")
# A line is never broken.
WIDTH = 4096
# A text that surely needs no quotes, unless it is a word of YAML's: those ruamel.yaml knows.
PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_.%-]*(?: [A-Za-z0-9_.%-]+)*")
# What stands before a comment: no '#', except in quotes or within a word.
BEFORE_COMMENT = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|[^#'"]|(?<!\s)#)*?\s(?=#)""")


def fill_template(values: Mapping[str, object], title: str | None = None) -> str:
    """Return the template with `values` by dotted key (`train.epochs`) and a title on top.

    A value replaces the one of its key as a whole; a key keeps its comment.
    Raises UserError for a key that the template does not have.
    """
    entries = {key: Entry([], _layout(key, value)) for key, value in values.items()}
    return _replace_entries(entries, TEMPLATE_FILE, title)


def apply_recipe(recipe: Path) -> str:
    """Return the template with the title and the keys that `recipe` holds.

    A comment that stands at a key of the recipe replaces the template's.
    Raises UserError for a file that is not YAML, and for keys that the template does not have.
    """
    return _replace_entries(_read_entries(recipe), recipe, read_title(recipe))


def read_title(recipe: Path) -> str | None:
    """Return the comment in the first line of a recipe, which says what it is."""
    first, *_ = [*_read_lines(recipe), ""]
    return first.removeprefix("#").strip() if first.startswith("#") else None


def flow_map(value: object) -> object:
    """Return a map as the file writes it, in braces; anything else as it is, texts quoted."""
    from ruamel.yaml.comments import CommentedMap

    value = _with_quotes(value)
    if not isinstance(value, dict):
        return value
    node = CommentedMap(value)
    node.fa.set_flow_style()
    return node


def _with_quotes(value: object) -> object:
    """Return a value in whose texts those are marked that are read back only in quotes.

    ruamel.yaml writes `12:30` and `?a` without, which no other parser takes within brackets.
    """
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    if isinstance(value, dict):
        return {_with_quotes(key): _with_quotes(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_quotes(each) for each in value]
    if isinstance(value, str) and not isinstance(value, DoubleQuotedScalarString):
        return value if PLAIN_TEXT.fullmatch(value) else _quoted_if_needed(value)
    return value


def _quoted_if_needed(text: str) -> str:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    node = CommentedMap({text: [text]})
    node.fa.set_flow_style()
    written, yaml = io.StringIO(), YAML()
    yaml.width = WIDTH
    yaml.dump(node, written)
    try:
        is_right = YAML(typ="safe").load(written.getvalue()) == {text: [text]}
    except (YAMLError, ValueError):
        is_right = False
    # Some signs that end a line stand as they are unless they are in double quotes.
    return text if is_right and text.isprintable() else DoubleQuotedScalarString(text)


@dataclass(frozen=True)
class Entry:
    """The lines of one key, and those of the comment right above it, which begins at `start`."""

    above: list[str]
    lines: list[str]
    start: int | None = None


def _replace_entries(entries: Mapping[str, Entry], source: Path, title: str | None) -> str:
    """Return the template with these entries in place of its own; `source` is for messages."""
    old = _read_entries(TEMPLATE_FILE)
    unknown = []
    for key, entry in entries.items():
        if key not in old:
            problem = wrong_name(f"the template has no key '{key}' to fill", key, old, key)
            line = None if entry.start is None else entry.start + len(entry.above) + 1
            unknown.append(replace(problem, value=None, file=_shown(source), line=line))
    if unknown:
        raise UserError(*unknown)
    lines = _read_lines(TEMPLATE_FILE)
    # From the end, so that what stands before keeps its line numbers.
    for key, entry in reversed(old.items()):
        if key in entries and entry.start is not None:
            stop = entry.start + len(entry.above) + len(entry.lines)
            lines[entry.start : stop] = _keep_comment(entry, entries[key])
    if title is not None:
        lines.insert(1, f"# {title}")
    return "\n".join(lines) + "\n"


def _keep_comment(old: Entry, new: Entry) -> list[str]:
    """Return the lines of `new`, with the comments of `old` if it has none."""
    if new.above or BEFORE_COMMENT.match(new.lines[0]):
        return [*new.above, *new.lines]
    first, *rest = new.lines
    before = BEFORE_COMMENT.match(old.lines[0])
    if before is not None:
        first = f"{first.ljust(before.end() - 2)}  {old.lines[0][before.end() :]}"
    return [*old.above, first, *rest]


def _read_entries(path: Path) -> dict[str, Entry]:
    """Return the keys of a file's sections (`train.epochs`), and its keys outside sections."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    read_yaml(path)  # says what is wrong with a file that is not YAML
    lines = _read_lines(path)
    tree = YAML().load("\n".join(lines)) or CommentedMap()
    if not isinstance(tree, CommentedMap):
        raise UserError(f"{_shown(path)} must hold sections with their keys")
    starts: dict[str, int] = {}
    stops = [len(lines)]
    for name, node in tree.items():
        stops.append(tree.lc.key(name)[0])
        if isinstance(node, CommentedMap) and node and not node.fa.flow_style():
            starts |= {f"{name}.{key}": node.lc.key(key)[0] for key in node}
        else:
            starts[str(name)] = tree.lc.key(name)[0]
    stops += starts.values()
    entries = {}
    for key, at in starts.items():
        # The first line is a title. What stands above the next key is no part of this one.
        start = at
        while start > 1 and lines[start - 1].lstrip().startswith("#"):
            start -= 1
        stop = min(each for each in stops if each > at)
        while not lines[stop - 1].strip() or lines[stop - 1].lstrip().startswith("#"):
            stop -= 1
        entries[key] = Entry(lines[start:at], lines[at:stop], start)
    return entries


def _layout(key: str, value: object) -> list[str]:
    """Return the lines of a key: a list and a map of maps below it, any other map in braces."""
    from ruamel.yaml import YAML

    *sections, name = key.split(".")
    shown = flow_map(value)
    if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
        shown = {_with_quotes(inner): flow_map(each) for inner, each in value.items()}
    yaml = YAML()
    yaml.width = WIDTH
    text = io.StringIO()
    yaml.dump({name: shown}, text)
    return [f"{'  ' * len(sections)}{line}" for line in text.getvalue().splitlines()]


def _read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _shown(path: Path) -> str:
    """The path from the current folder, where it lies in there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
