"""The command line of `reprise init`: its options, and messages that name them.

A message of prepare names a line of `params.yaml`, which init has yet to write: here it becomes the
option that says the same.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from stages.common.config import Config, validate
from stages.common.errors import Problem, UserError, wrong_name
from stages.common.yamlfile import parse_yaml
from stages.formats.images.arrays import read_name
from stages.prepare.params import Column, Kind
from stages.tools.init.manifest import tell_manifest

Setting = str | dict[str, Any]
COLUMN = "--column"
_AT = "prepare.columns."
# As `as_line` writes it.
_LINE = re.compile(r'columns: \{("(?:[^"\\]|\\.)*"|[A-Za-z_]\w*): (\{[^{}\n]*\}|\w+)\}')
# Parameters that an option names.
_NAMED = {
    "prepare.key": "--key …, another column, or leave it out",
    "prepare.weight": "--weight …, another column, or leave it out",
}

# What init writes by itself.
_DROPS = " and drop_missing_target: true"


class _Section(Config):
    """The part of the section `prepare` that options say."""

    columns: dict[str, Kind | Column]


@dataclass(frozen=True)
class Options:
    """The command line: None is for `init` to find. `columns` are texts `NAME=SETTING`."""

    source: str
    target: str
    task: str | None = None
    key: str | None = None
    time: str | None = None
    group: str | None = None
    weight: str | None = None
    columns: Sequence[str] = ()

    def settings(self) -> dict[str, Setting]:
        """The settings of columns, as `prepare.columns` has it.

        Raises UserError for what can't stand there.
        """
        found: dict[str, Setting] = dict(map(_parse, self.columns))
        try:
            section = validate(_Section, {"columns": found}, at="prepare")
        except UserError as error:
            raise UserError(*(_name_setting(each, found) for each in error.problems)) from None
        said = section.columns.get(self.target)
        if (said.kind if isinstance(said, Column) else said) == "exclude":
            raise UserError(f"{COLUMN} {self.target}=exclude: the target can't be left out")
        return found


def _name_setting(problem: Problem, names: Collection[str]) -> Problem:
    """A mistake in a setting of the command line, with the option that has it."""
    rest = (problem.key or "").removeprefix(_AT)
    name = max((n for n in names if f"{rest}.".startswith(f"{n}.")), key=len, default=rest)
    return replace(problem, message=f"{COLUMN} {quote(name)}=…: {problem.message}", key=None)


def _parse(word: str) -> tuple[str, Setting]:
    """The name and the setting of `NAME=SETTING`; a name may hold '=' itself."""
    parts = word.split("=")
    for place in range(1, len(parts)):
        name, text = "=".join(parts[:place]), "=".join(parts[place:])
        said = parse_yaml(text, Path(f"{COLUMN} {name}"))
        if isinstance(said, dict) or (isinstance(said, str) and "=" not in said):
            return name, said
    raise UserError(
        f"{COLUMN} {word}: it must be a name and a setting, such as {COLUMN} 'price=numeric' or "
        f"{COLUMN} 'price={{kind: numeric, thousands: \",\"}}'"
    )


def words_alone(setting: Setting | None) -> list[Any] | None:
    """The words of a setting that says nothing else; None of one that does."""
    if setting is None:
        return []
    return (
        setting["missing"] if isinstance(setting, dict) and list(setting) == ["missing"] else None
    )


def with_gaps(own: Setting | None, found: Setting | None) -> Setting | None:
    """The setting of a column, with the words for gaps that were found in it."""
    if isinstance(own, dict) and isinstance(found, dict) and "missing" in found:
        return {**own, "missing": found["missing"]}
    return own or found


def check_named(columns: Collection[str], options: Options, said: Collection[str]) -> None:
    """Raise UserError for names of the command line that the source does not have."""
    named = [(f"--{each}", getattr(options, each)) for each in ("target", "key", "time")]
    named += [(f"--{each}", getattr(options, each)) for each in ("group", "weight")]
    problems = []
    for option, name in (*named, *((COLUMN, name) for name in said)):
        if name is not None and name not in columns:
            message = f"{option} {name}: {options.source} has no such column"
            message += tell_manifest(Path(options.source), options.target)
            message += _say_several(option, name, columns)
            problem = wrong_name(message, name, list(columns))
            called = read_name(name)[1] if Path(options.source).suffix.lower() == ".npz" else None
            if called in columns:
                message += f"; {name} is called {called} here"
                problem = replace(problem, message=message, suggestion=called)
            problems.append(problem)
    if problems:
        raise UserError(*problems)


def _say_several(option: str, name: str, columns: Collection[str]) -> str:
    """The way on where a name is those of several columns."""
    first, *others = dict.fromkeys(part.strip() for part in name.split(","))
    if not others or not {first, *others} <= {*columns}:
        return ""
    if option != "--target":
        return "; it is one column"
    left = " ".join(f"{COLUMN} {quote(f'{other}=exclude')}" for other in others)
    return f"; a model has one target, and each other a model of its own: --target {first} {left}"


def name_option(problem: Problem) -> Problem:
    """A mistake in `prepare.columns` as one in an option, and its lines as options."""
    message = as_options(problem.message)
    if problem.key == "prepare.task":
        tasks = tuple(each for each in problem.allowed if each != "auto")
        message = f"{message}\n  say      --task {tasks[0]}" if tasks else message
        return replace(problem, message=message, key=None, allowed=tasks)
    if problem.key == "prepare.target":
        message = message if COLUMN in message else f"{message}\n  say      --target …"
        return replace(problem, message=message, key=None)
    if problem.key in _NAMED:
        message = f"{message}\n  say      {_NAMED[problem.key]}"
        return replace(problem, message=message, key=None)
    if problem.key == "prepare.structure":
        return replace(problem, message=message, key=None)
    if problem.key is None or not problem.key.startswith(_AT):
        return replace(problem, message=message)
    if COLUMN not in message:
        message = f"{message}\n  say      {COLUMN} {quote(problem.key.removeprefix(_AT))}=…"
    return replace(problem, message=message, key=None)


def as_options(text: str) -> str:
    """A message with options in place of lines of `params.yaml`."""
    return (
        _LINE.sub(_as_option, text)
        .replace("the line of params.yaml", "the option")
        .replace(_DROPS, "")
    )


def _as_option(line: re.Match[str]) -> str:
    name, said = line.groups()
    name = json.loads(name) if name.startswith('"') else name
    # Quotes of the shell stand around it.
    said = said if "''" in said else re.sub(r"""'([^'"\\]*)'""", r'"\1"', said)
    setting = f"{name}={said}"
    # zsh takes a word that begins so for the path of a command.
    return f"{COLUMN} " + (f"'{setting}'" if setting == "=exclude" else quote(setting))


def found_as_options(found: Mapping[str, Any]) -> dict[str, Any]:
    """The findings of a survey, all of whose messages name options."""
    columns = [
        {**c, "why": as_options(c["why"]), "warnings": list(map(as_options, c["warnings"]))}
        for c in found["columns"]
    ]
    said = {name: list(map(as_options, found[name])) for name in ("notes", "warnings")}
    return {**found, **said, "columns": columns}
