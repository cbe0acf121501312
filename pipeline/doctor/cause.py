"""A reason for which a run fails, or learns nothing: one row of the table.

The table is the files of `pipeline/doctor/causes`. `reprise doctor` recognises a failure by it, and
`docs/troubleshooting.md` is written from it, so that the two say the same.
"""

import functools
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FOLDER = Path(__file__).parent / "causes"
# In the order of the page, which is that in which somebody meets them.
CHAPTERS = ("shapes", "memory", "numbers", "learning", "processes", "state")
# The measurements of `stages.tools.diagnose`.
Probe = Literal["labels", "shapes", "memory", "rate", "layers", "learning", "splits"]


@dataclass(frozen=True)
class Cause:
    """A cause, for somebody who meets it for the first time.

    `signs` are lines as they are seen, and `patterns` regular expressions that find them in what a
    run has said; without patterns it is found by measuring alone. `means` says what has happened,
    `remedies` what to do, the most likely first. `probes` measure more where it is met.
    `recorded`: no test provokes it here, it is recognised by messages that were recorded.
    `is_general`: it counts only where nothing says more.
    """

    name: str
    signs: tuple[str, ...]
    means: str
    remedies: tuple[str, ...]
    patterns: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    recorded: bool = False
    is_general: bool = False


@dataclass(frozen=True)
class Chapter:
    """The causes of one file of the table."""

    title: str
    causes: tuple[Cause, ...]


def read_chapters() -> list[Chapter]:
    """The whole table, found by listing; a new file comes after those that are known."""
    found = sorted(
        (path.stem for path in FOLDER.glob("[!_]*.py")),
        key=lambda name: (CHAPTERS.index(name) if name in CHAPTERS else len(CHAPTERS), name),
    )
    modules = [importlib.import_module(f"pipeline.doctor.causes.{name}") for name in found]
    return [Chapter(module.TITLE, module.CAUSES) for module in modules]


@functools.cache
def _patterns() -> Sequence[tuple[re.Pattern[str], Cause]]:
    causes = [cause for chapter in read_chapters() for cause in chapter.causes]
    return [
        (re.compile(text, re.IGNORECASE | re.MULTILINE), c) for c in causes for text in c.patterns
    ]


def recognise(text: str) -> list[Cause]:
    """The causes whose patterns stand in what a run has said, the one that was said last first.

    What ends a run is said at its end; before it there may be what it has got over.
    """
    last: dict[str, tuple[int, Cause]] = {}
    for pattern, cause in _patterns():
        for found in pattern.finditer(text):
            if cause.name not in last or found.start() > last[cause.name][0]:
                last[cause.name] = (found.start(), cause)
    found_all = [cause for _, cause in sorted(last.values(), key=lambda pair: -pair[0])]
    return [cause for cause in found_all if not cause.is_general] or found_all


def find_cause(name: str) -> Cause:
    """The cause of this name."""
    causes = [cause for chapter in read_chapters() for cause in chapter.causes]
    return next(cause for cause in causes if cause.name == name)
