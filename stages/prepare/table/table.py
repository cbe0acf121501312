"""A table of any length: in memory where it is short, else in Arrow files of a folder.

    table = open_table(Path("data/raw/houses.csv"), "prepare.source", folder)
    for part in table.parts(["price"]): …

A part has up to 131,072 rows, or some 16 MiB of text.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.features.numbers import Rows
from stages.parallel.mapper import Local, Mapper
from stages.prepare.table.read_part import read_part

Change = Callable[[pl.Series], pl.Series]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """Rows in parts: `schema` has the types of the columns, `heights` the rows of each source.

    `sources` are the parts as read, each a frame or an Arrow file. Whenever a part is taken, a
    column is cast to its type in `types` (else in `schema`), and then changed by its function in
    `changes`. `made` are columns more, each by the name of another one and a function of it. `rows`
    is a mask over all rows of the sources, of those that the table has, or its file; None: all.
    `has_commas`: its file's numbers probably have decimal commas.
    """

    schema: pl.Schema
    heights: list[int]
    sources: Sequence[pl.DataFrame | Path]
    changes: Mapping[str, Change] = field(default_factory=dict)
    types: Mapping[str, pl.DataType] = field(default_factory=dict)
    rows: Mask | Path | None = None
    made: Mapping[str, tuple[str, Change]] = field(default_factory=dict)
    has_commas: bool = False

    @property
    def height(self) -> int:
        """The number of rows."""
        rows = self.mask
        return sum(self.heights) if rows is None else int(np.count_nonzero(rows))

    @property
    def mask(self) -> Mask | None:
        """The rows of the sources that the table has, as a mask over all; None: all of them."""
        return np.load(self.rows, mmap_mode="r") if isinstance(self.rows, Path) else self.rows

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in their order."""
        return self.schema.names()

    @property
    def is_whole(self) -> bool:
        """Check whether all rows are one part in memory."""
        return len(self.sources) == 1 and isinstance(self.sources[0], pl.DataFrame)

    @property
    def is_on_disk(self) -> bool:
        """Check whether all parts are files, which other processes can read."""
        return all(isinstance(source, Path) for source in self.sources)

    def with_mask_on_disk(self, file: Path) -> "Table":
        """The same table, with its mask in a file: as small as the list of its parts."""
        if self.mask is None:
            return self
        np.save(file, self.mask)
        return replace(self, rows=file)

    def each_part(self) -> Iterator["Shard"]:
        """Each part as a table of its own, with the number of its first row in the sources."""
        start, rows = 0, self.mask
        for source, height in zip(self.sources, self.heights, strict=True):
            own = None if rows is None else np.array(rows[start : start + height])
            yield Shard(replace(self, sources=[source], heights=[height], rows=own), start)
            start += height

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
        return (part for part, _, _ in self._masked_parts(wanted))

    def numbered_parts(self, names: Collection[str]) -> Iterator[tuple[pl.DataFrame, Rows]]:
        """The rows, part by part, and their numbers in the sources (rows,)."""
        start = 0
        for part, height, own in self._masked_parts([n for n in self.schema if n in names]):
            yield part, start + (np.arange(height) if own is None else np.flatnonzero(own))
            start += height

    def _masked_parts(self, names: list[str]) -> Iterator[tuple[pl.DataFrame, int, Mask | None]]:
        """The rows, part by part; the height of their source, and the mask that chose them."""
        start, rows = 0, self.mask
        for source, height in zip(self.sources, self.heights, strict=True):
            part = self._load(source, names)
            own = None if rows is None else np.asarray(rows[start : start + height])
            yield part if own is None else part.filter(pl.Series(own)), height, own
            start += height

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
            frame = read_part(frame, needed)
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


@dataclass(frozen=True)
class Shard:
    """A part of a table: what a function of parts is given. `start` is its first row's number."""

    table: Table
    start: int

    def read(self, names: Collection[str]) -> tuple[pl.DataFrame, Rows]:
        """The rows, and their numbers in the sources of the whole table (rows,)."""
        ((part, numbers),) = self.table.numbered_parts(names)
        return part, numbers + self.start


def _gaps(name: str, num_rows: int) -> pl.Series:
    return pl.Series(name, [None], dtype=pl.Null).new_from_index(0, num_rows)


def in_memory(frame: pl.DataFrame) -> Table:
    """A frame as a table of one part."""
    return Table(frame.schema, [frame.height], [frame])


def mapper_for(table: Table, mapper: Mapper) -> Mapper:
    """`mapper`, or threads of this process for parts that lie in its memory."""
    return mapper if table.is_on_disk else Local()
