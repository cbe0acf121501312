"""The form of a user's mistake: the value, what is allowed, and what to edit.

`UserError` is for what a user can mend; `assert` is for the project's own invariants.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stages.common.addresses import hide_secrets

MAX_ALLOWED_SHOWN = 12
MAX_VALUE_LENGTH = 80


@dataclass(frozen=True)
class Problem:
    """One mistake.

    `key` is the dotted key to edit (`train.optimizer.lr`) in `file`; `line` is looked up from
    the two when the problem is shown. `value` is what stands there, already as text. Of a file of
    code there is no key but the line.
    """

    message: str
    key: str | None = None
    value: str | None = None
    allowed: tuple[str, ...] = ()
    suggestion: str | None = None
    file: str = "params.yaml"
    line: int | None = None


class UserError(ValueError):
    """One or more mistakes of the user's, shown on one screen without a traceback."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = [Problem(p) if isinstance(p, str) else p for p in problems]
        super().__init__("\n".join(format_problem(p) for p in self.problems))

    def __reduce__(self) -> tuple[type["UserError"], tuple[Problem, ...]]:
        # From process to process with the keys and lines that its text has lost.
        return type(self), tuple(self.problems)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` most looks like, or is the beginning of, or None."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, cutoff=0.6)
    # The same letters in another order come first: of lgo log, and not low.
    close.sort(key=lambda name: sorted(name) != sorted(word.lower()))
    close += [name for name in by_lower if len(word) > 2 and name.startswith(word.lower())]
    return by_lower[close[0]] if close else None


def wrong_name(message: str, name: str, allowed: Iterable[str], key: str | None = None) -> Problem:
    """The problem of a name that is not among the allowed ones, with the nearest of them."""
    names = tuple(allowed)
    return Problem(
        message, key=key, value=name, allowed=names, suggestion=did_you_mean(name, names)
    )


def wrong_value(
    must: str,
    key: str,
    value: object,
    file: str = "params.yaml",
    allowed: Iterable[str] = (),
) -> Problem:
    """The problem of a value that is not what it `must` be: 'be a number', 'have 2 items'."""
    parts = key.split(".")
    # A place in a list says little without the list.
    name = ".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:])
    name = f"item {name}" if name.isdigit() else name
    shown = "null" if value is None else quoted(value) if isinstance(value, str) else value
    return Problem(f"{name} must {must}", key, shorten(shown), tuple(allowed), file=file)


def quoted(text: str) -> str:
    """A text as YAML has it: in quotes where it would be a number, a truth or nothing."""
    try:
        float(text)
    except ValueError:
        needs = text.strip().lower() in ("", "~", "null", "true", "false")
    else:
        needs = True
    return f'"{text}"' if needs else text


def shorten(value: object) -> str:
    """`value` as text that fits a line, without the user and password of an address."""
    text = hide_secrets(value if isinstance(value, str) else _as_yaml(value))
    return text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 1] + "…"


def _as_yaml(value: object) -> str:
    """A value as it stands in a line of `params.yaml`, maps and lists in brackets."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_as_yaml(k)}: {_as_yaml(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if isinstance(value, str):
        return quoted(value)
    shown = "null" if value is None else str(value)
    return shown.lower() if isinstance(value, bool) else shown


def format_problem(problem: Problem) -> str:
    """The problem as two to five lines: what, where to edit, what is allowed, did you mean."""
    lines = [problem.message]
    if problem.key is not None:
        place = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
        shown = "" if problem.value is None else f": {shorten(problem.value)}"
        lines.append(f"  edit     {place}  {problem.key}{shown}")
    elif problem.line is not None:
        lines.append(f"  edit     {problem.file}:{problem.line}  {shorten(problem.value or '')}")
    if problem.allowed:
        shown = ", ".join(problem.allowed[:MAX_ALLOWED_SHOWN])
        rest = len(problem.allowed) - MAX_ALLOWED_SHOWN
        lines.append(f"  allowed  {shown}" + (f", and {rest} more" if rest > 0 else ""))
    if problem.suggestion is not None:
        lines.append(f"  did you mean '{problem.suggestion}'?")
    return "\n".join(lines)
