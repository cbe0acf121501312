"""One thing that the doctor has found, and what it was asked to look at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

# `wrong`: something will fail until it is mended. `note`: worth knowing, nothing fails by it.
Level = Literal["ok", "note", "wrong"]
Measure = Literal["needed", "all", "none"]


@dataclass(frozen=True)
class Finding:
    """A thing that was found, why it matters, and the command or the edit that mends it.

    `fix` mends it by itself, without harm to anything, and says what it has done.
    """

    level: Level
    what: str
    why: str = ""
    mend: tuple[str, ...] = ()
    fix: Callable[[], str] | None = None


@dataclass(frozen=True)
class Options:
    """The options of the command. `log` is the text of a run from elsewhere.

    `measure`: whether trainings are measured, which takes torch and up to a minute: where a
    finding needs it, always, or never. `network`: ask remotes and servers that are elsewhere.
    """

    network: bool = False
    measure: Measure = "needed"
    log: str | None = None


class Check(Protocol):
    """A file of `pipeline/doctor/checks`. `AREA` is its name to a person."""

    AREA: str

    def check(self, options: Options) -> Iterator[Finding]:
        """Yield what is found, good and bad. May raise UserError and OSError: one more finding."""


def ok(what: str) -> Finding:
    """A thing that is well."""
    return Finding("ok", what)


def note(what: str, why: str, *mend: str, fix: Callable[[], str] | None = None) -> Finding:
    """A thing that is worth knowing."""
    return Finding("note", what, why, mend, fix)


def wrong(what: str, why: str, *mend: str, fix: Callable[[], str] | None = None) -> Finding:
    """A thing by which something will fail."""
    return Finding("wrong", what, why, mend, fix)
