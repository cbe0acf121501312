"""A table of any length: in memory where it is short, else in Arrow files of a folder.

    table = open_table(Path("data/raw/houses.csv"), "prepare.source", folder)
    for part in table.parts(["price"]): …

The source is read once, and again if its parts disagree on a column's type: a column has the type
that all of its values have, as in a table that is read whole. A part has up to 131,072 rows, or
some 16 MiB of text.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.errors import Problem, UserError
from stages.features.numbers import Rows
from stages.formats.format import find_reader
from stages.formats.part import Part, join_types
from stages.formats.read import CANNOT_READ, check_file, unreadable
from stages.formats.reading import Damage, Noticed, damage_message
from stages.formats.suffixes import SUFFIXES

# Estimated size of all parts above which each is written to the disk; fixed, so that results do
# not depend on the machine.
MEMORY_BYTES = 128 << 20
# Where a table lies on the disk, below the folder that was named for it.
PARTS = "table"


Change = Callable[[pl.Series], pl.Series]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """Rows in parts: `schema` has the types of the columns, `heights` the rows of each source.

    `sources` are the parts as read, each a frame or an Arrow file. Whenever a part is taken, a
    column is cast to its type in `types` (else in `schema`), and then changed by its function in
    `changes`. `made` are columns more, each by the name of another one and a function of it. `rows`
    is a mask over all rows of the sources, of those that the table has; None: all.
    """

    schema: pl.Schema
    heights: list[int]
    sources: Sequence[pl.DataFrame | Path]
    changes: Mapping[str, Change] = field(default_factory=dict)
    types: Mapping[str, pl.DataType] = field(default_factory=dict)
    rows: Mask | None = None
    made: Mapping[str, tuple[str, Change]] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """The number of rows."""
        return sum(self.heights) if self.rows is None else int(np.count_nonzero(self.rows))

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in their order."""
        return self.schema.names()

    @property
    def is_whole(self) -> bool:
        """Check whether all rows are one part in memory."""
        return len(self.sources) == 1 and isinstance(self.sources[0], pl.DataFrame)

    def where(self, rows: Mask) -> "Table":
        """The rows of the sources where `rows` (of all) is true; replaces an earlier mask."""
        return replace(self, rows=rows)

    def changed(self, changes: Mapping[str, Change], schema: Mapping[str, pl.DataType]) -> "Table":
        """The table with columns changed, by a function of each part, to the types of `schema`.

        Replaces earlier changes.
        """
        types = {name: self.schema[name] for name in changes}
        return replace(
            self, schema=pl.Schema({**self.schema, **schema}), changes=changes, types=types
        )

    def derived(
        self, made: Mapping[str, tuple[str, Change]], schema: Mapping[str, pl.DataType]
    ) -> "Table":
        """The table with columns more, each made of another one, of the types of `schema`.

        Replaces earlier ones.
        """
        return replace(self, schema=pl.Schema({**self.schema, **schema}), made=made)

    def parts(self, names: Collection[str] | None = None) -> Iterator[pl.DataFrame]:
        """The rows, part by part: all columns, or those that `names` has, in the table's order."""
        wanted = [name for name in self.schema if names is None or name in names]
        return (part for part, _ in self.numbered_parts(wanted))

    def numbered_parts(self, names: Collection[str]) -> Iterator[tuple[pl.DataFrame, Rows]]:
        """The rows, part by part, and their numbers in the sources (rows,)."""
        wanted = [name for name in self.schema if name in names]
        start = 0
        for source, height in zip(self.sources, self.heights, strict=True):
            part, numbers = self._load(source, wanted), np.arange(start, start + height)
            start += height
            if self.rows is not None:
                is_own = self.rows[numbers]
                part, numbers = part.filter(pl.Series(is_own)), numbers[is_own]
            yield part, numbers

    def last_row(self) -> pl.DataFrame:
        """The last row of the sources."""
        return self._load(self.sources[-1], self.columns)[-1:]

    def column_parts(self, name: str) -> Iterator[pl.Series]:
        """A column, part by part."""
        return (part[name] for part in self.parts([name]))

    def column(self, name: str) -> pl.Series:
        """A column of all rows: 8 bytes a row for numbers, and more for texts."""
        return pl.concat(self.column_parts(name), rechunk=True)

    def frame(self) -> pl.DataFrame:
        """All of it in memory."""
        return pl.concat(self.parts(), rechunk=False)

    def _load(self, source: pl.DataFrame | Path, names: list[str]) -> pl.DataFrame:
        frame = source
        needed = [*names, *(self.made[name][0] for name in names if name in self.made)]
        if isinstance(frame, Path):
            there = set(pl.read_ipc_schema(frame))
            frame = pl.read_ipc(frame, columns=[*dict.fromkeys(n for n in needed if n in there)])
        # By their names: polars gives a column without one a name of its own.
        return pl.DataFrame({name: self._column(frame, name) for name in names})

    def _column(self, frame: pl.DataFrame, name: str) -> pl.Series:
        if name in self.made:
            base, make = self.made[name]
            return make(self._column(frame, base)).cast(self.schema[name]).alias(name)
        dtype = self.types.get(name, self.schema[name])
        column = frame[name] if name in frame.columns else _gaps(name, frame.height)
        column = column.cast(dtype)
        if name in self.changes:
            column = self.changes[name](column).cast(self.schema[name])
        return column


def _gaps(name: str, num_rows: int) -> pl.Series:
    return pl.Series(name, [None], dtype=pl.Null).new_from_index(0, num_rows)


def in_memory(frame: pl.DataFrame) -> Table:
    """A frame as a table of one part."""
    return Table(frame.schema, [frame.height], [frame])


def open_table(
    path: Path,
    key: str,
    folder: Path,
    say: Callable[[str], None] = print,
    expected: Collection[str] = (),
) -> Table:
    """The table in a file or a folder of files; `key` is the parameter that names it.

    What does not fit into MEMORY_BYTES lies in `folder`, which the caller removes. `expected` are
    names of columns that are asked for, by which a header is known as one; `say` is told what a
    person should know. Raises UserError when the source is missing, empty, of another kind, or
    damaged, be it in one line.
    """
    check_file(path, key)
    reader, as_text = find_reader(path), frozenset[str]()
    while True:
        noticed = Noticed(expected=expected)
        collected = _Collected(folder / PARTS)
        try:
            for part in reader.parts(path, key, noticed, as_text):
                collected.add(part, noticed)
        except CANNOT_READ as error:
            raise unreadable(error, path, key) from None
        if not collected.conflicts or collected.damaged:
            break
        # A text behind many numbers, mostly: the column is one of texts from its first row on.
        as_text |= collected.conflicts
    if collected.damaged:
        raise UserError(_problem(damage_message(path, collected.damaged), path, key))
    table = collected.finish()
    if table.height == 0:
        raise UserError(_problem(f"{path} has a header but no rows", path, key))
    for line in noticed.lines():
        say(line)
    return table


@dataclass
class _Collected:
    """Takes the parts as they come; `conflicts` are columns that are texts, and were read as not.

    Of a table with a damaged row the damage alone is kept.
    """

    folder: Path
    parts: list[pl.DataFrame | Path] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    schema: dict[str, pl.DataType] = field(default_factory=dict)
    types: dict[str, pl.DataType] = field(default_factory=dict)
    damaged: list[Damage] = field(default_factory=list)
    conflicts: set[str] = field(default_factory=set)
    num_bytes: int = 0

    def add(self, part: Part, noticed: Noticed) -> None:
        """Take a part in."""
        self.damaged += part.damaged
        if self.damaged:
            self.parts.clear()
            return
        for column in part.table.iter_columns():
            noticed.add_infinite(column.name, column if column.dtype.is_float() else column.head(0))
            self.types.setdefault(column.name, column.dtype)
            is_empty = column.dtype == pl.String and column.null_count() == column.len()
            dtype = pl.Null() if is_empty else column.dtype
            joined = join_types(self.schema.get(column.name, pl.Null()), dtype)
            if joined is None:
                self.conflicts.add(column.name)
            else:
                self.schema[column.name] = joined
        if self.conflicts or not part.table.height:
            return
        self.num_bytes += int(part.table.estimated_size())
        self.parts.append(part.table)
        self.heights.append(part.table.height)
        if self.num_bytes > MEMORY_BYTES:
            self._to_disk()

    def _to_disk(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, part in enumerate(self.parts):
            if isinstance(part, pl.DataFrame):
                file = self.folder / f"{number:06}.arrow"
                part.write_ipc(file)
                self.parts[number] = file

    def finish(self) -> Table:
        """The table; what fits into memory is one part."""
        schema = {
            name: self.types[name] if dtype == pl.Null else dtype
            for name, dtype in self.schema.items()
        }
        table = Table(pl.Schema(schema), self.heights, self.parts)
        if self.num_bytes > MEMORY_BYTES or not self.parts:
            return table
        return in_memory(table.frame())


def _problem(message: str, path: Path, key: str) -> Problem:
    return Problem(message, key=key, value=str(path), allowed=SUFFIXES)
