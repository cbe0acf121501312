"""The reading of a source into a table.

The source is read once, and again if its parts disagree on a column's type: a column has the type
that all of its values have, as in a table that is read whole. Columns of numbers whose dots may
stand between thousands (`dots.py`) are read as texts.
"""

import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

from stages.common.errors import Problem, UserError
from stages.formats.format import find_reader
from stages.formats.read import CANNOT_READ, check_file, unreadable
from stages.formats.reading import Noticed, damage_message
from stages.parallel.mapper import Mapper
from stages.prepare.table.collected import Collected
from stages.prepare.table.dots import find_doubtful, has_commas
from stages.prepare.table.read_ranges import collect_ranges
from stages.prepare.table.table import Table

# Where a table lies on the disk, below the folder that was named for it.
PARTS = "table"


def open_table(
    path: Path,
    key: str,
    folder: Path,
    say: Callable[[str], None] = print,
    expected: Collection[str] = (),
    mapper: Mapper | None = None,
    as_text: frozenset[str] = frozenset(),
) -> Table:
    """The table in a file or a folder of files; `key` is the parameter that names it.

    What does not fit into MEMORY_BYTES lies in `folder`, which the caller removes. `expected` are
    names of columns that are asked for, by which a header is known as one; those `as_text` stay
    texts; `say` is told what a person should know. Raises UserError when the source is missing,
    empty, of another kind, or damaged, be it in one line.
    """
    check_file(path, key)
    try:
        table, noticed = _read(path, key, folder, expected, mapper, as_text)
        commas = has_commas(table, noticed.separators)
        own = partial(find_reader(path).parts, path, key, Noticed(expected=expected))
        if commas and (doubtful := find_doubtful(table, own)):
            shutil.rmtree(folder / PARTS, ignore_errors=True)
            table, noticed = _read(path, key, folder, expected, mapper, as_text | doubtful)
    except CANNOT_READ as error:
        raise unreadable(error, path, key) from None
    if table.height == 0:
        raise UserError(_problem(f"{path} has a header but no rows", path, key))
    for line in noticed.lines():
        say(line)
    return replace(table, has_commas=commas)


def _read(
    path: Path,
    key: str,
    folder: Path,
    expected: Collection[str],
    mapper: Mapper | None,
    as_text: frozenset[str],
) -> tuple[Table, Noticed]:
    """The table, each column of the type that all of its values have, and what was noticed."""
    reader = find_reader(path)
    while True:
        noticed = Noticed(expected=expected)
        collected = Collected(folder / PARTS)
        if mapper is None or not collect_ranges(path, noticed, collected, as_text, mapper):
            for part in reader.parts(path, key, noticed, as_text):
                collected.add(part, noticed)
        if not collected.conflicts or collected.damaged:
            break
        # A text behind many numbers, mostly: the column is one of texts from its first row on.
        as_text |= collected.conflicts
        shutil.rmtree(collected.folder, ignore_errors=True)
    if collected.damaged:
        raise UserError(_problem(damage_message(path, collected.damaged), path, key))
    return collected.finish(), noticed


def _problem(message: str, path: Path, key: str) -> Problem:
    return Problem(message, key=key, value=str(path))
