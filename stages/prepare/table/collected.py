"""The parts of a table as they are read: their types joined, the parts on the disk where many."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from stages.formats.part import Part, join_types
from stages.formats.reading import Damage, Noticed
from stages.prepare.table.table import Table, in_memory

# Estimated size of all parts above which each is written to the disk; fixed, so that results do
# not depend on the machine.
MEMORY_BYTES = 128 << 20


@dataclass(frozen=True)
class Look:
    """A part, as far as the table must know it: the type of each column, and whether it is empty.

    `infinite` counts the infinities and NaN by column and word.
    """

    height: int
    num_bytes: int
    columns: dict[str, tuple[pl.DataType, bool]]
    infinite: Counter[tuple[str, str]]


def look_at(table: pl.DataFrame) -> Look:
    """All that the whole table must know of a part."""
    noticed, columns = Noticed(), {}
    for column in table.iter_columns():
        noticed.add_infinite(column.name, column if column.dtype.is_float() else column.head(0))
        is_empty = column.dtype == pl.String and column.null_count() == column.len()
        columns[column.name] = column.dtype, is_empty
    return Look(table.height, int(table.estimated_size()), columns, noticed.gaps)


@dataclass
class Collected:
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
        self.take(look_at(part.table), part.table, noticed)

    def take(self, look: Look, rows: pl.DataFrame | Path, noticed: Noticed) -> None:
        """Take in the rows of a part, or their file, by what was seen of it."""
        noticed.gaps.update(look.infinite)
        for name, (dtype, is_empty) in look.columns.items():
            self.types.setdefault(name, dtype)
            joined = join_types(self.schema.get(name, pl.Null()), pl.Null() if is_empty else dtype)
            if joined is None:
                self.conflicts.add(name)
            else:
                self.schema[name] = joined
        if self.conflicts or not look.height:
            return
        self.num_bytes += look.num_bytes
        self.parts.append(rows)
        self.heights.append(look.height)
        if self.num_bytes > MEMORY_BYTES:
            self._to_disk()

    def file_of(self, number: int) -> Path:
        """The file of a part by its number, in a folder that is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{number:06}.arrow"

    def _to_disk(self) -> None:
        for number, part in enumerate(self.parts):
            if isinstance(part, pl.DataFrame):
                file = self.file_of(number)
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
