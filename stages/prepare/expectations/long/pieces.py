"""A table of any length in pieces of a bounded size, for work that costs as much a piece as a row.

The parts of a table are of some ten thousand rows, or, in memory, of all.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from stages.features.numbers import Rows
from stages.prepare.table.table import Shard, Table

PIECE_ROWS = 250_000
PIECE_BYTES = 32 << 20
Sized = TypeVar("Sized", pl.DataFrame, "Slice")


def is_short(table: Table) -> bool:
    """Check whether the table lies in memory as one piece."""
    return table.is_whole and table.height <= PIECE_ROWS


def pieces(table: Table, names: Collection[str]) -> Iterator[tuple[int, pl.DataFrame]]:
    """The columns of `names`, piece by piece, each with the number of its first row."""
    start = 0
    for piece in _joined(_sliced(table.parts(names))):
        yield start, piece
        start += piece.height


@dataclass(frozen=True)
class Slice:
    """Rows of a part of a table, from `offset` on."""

    shard: Shard
    offset: int
    height: int
    num_bytes: float

    def estimated_size(self) -> float:
        """The bytes that its columns take in memory, as polars says it of a frame."""
        return self.num_bytes


@dataclass(frozen=True)
class Piece:
    """Some slices of a table that together are a piece, and the names of its columns."""

    slices: Sequence[Slice]
    names: Collection[str]

    def read(self) -> pl.DataFrame:
        """The rows."""
        parts = (each.shard.read(self.names)[0] for each in self.slices)
        own = [
            part.slice(each.offset, each.height)
            for part, each in zip(parts, self.slices, strict=True)
        ]
        return pl.concat(own)


def cut_pieces(table: Table, names: Collection[str]) -> list[Piece]:
    """Pieces to be read where they are needed; a part on the disk is as large as its file."""
    slices = (each for shard in table.each_part() for each in _slice(names, shard))
    return [Piece(group, names) for group in _grouped(slices)]


def _slice(names: Collection[str], shard: Shard) -> Iterator[Slice]:
    (source,), (height,) = shard.table.sources, shard.table.heights
    if isinstance(source, Path):
        yield Slice(shard, 0, height, source.stat().st_size)
        return
    offset = 0
    for rows in _sliced([shard.read(names)[0]]):
        yield Slice(shard, offset, rows.height, rows.estimated_size())
        offset += rows.height


def _sliced(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    for part in parts:
        size = part.estimated_size()
        height = PIECE_ROWS
        if size > PIECE_BYTES:
            height = min(height, max(1, int(part.height * PIECE_BYTES / size)))
        yield from part.iter_slices(height) if part.height > height else (part,)


def _joined(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    return (pl.concat(group) for group in _grouped(parts))


def _grouped(parts: Iterable[Sized]) -> Iterator[list[Sized]]:
    """The parts that are a piece together."""
    held: list[Sized] = []
    num_rows, num_bytes = 0, 0.0
    for part in parts:
        size = part.estimated_size()
        if held and (num_rows + part.height > PIECE_ROWS or num_bytes + size > PIECE_BYTES):
            yield held
            held, num_rows, num_bytes = [], 0, 0.0
        held.append(part)
        num_rows += part.height
        num_bytes += size
    if held:
        yield held


def take_rows(table: Table, names: Collection[str], rows: Rows) -> pl.DataFrame:
    """The columns of `names` in rows by their numbers (any order, some twice), in their order."""
    wanted, places = np.unique(rows, return_inverse=True)
    found: list[pl.DataFrame] = []
    start = 0
    for part in table.parts(names):
        stop = start + part.height
        own = wanted[(wanted >= start) & (wanted < stop)]
        if own.size or not found:
            found.append(part[own - start])
        start = stop
        if start > wanted[-1]:
            break
    return pl.concat(found)[places]
