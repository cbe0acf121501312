"""A table of any length in pieces of a bounded size, for work that costs as much a piece as a row.

The parts of a table are of some ten thousand rows, or, in memory, of all.
"""

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import polars as pl

from stages.features.numbers import Rows
from stages.prepare.table.table import Table

PIECE_ROWS = 250_000
PIECE_BYTES = 32 << 20


def is_short(table: Table) -> bool:
    """Check whether the table lies in memory as one piece."""
    return table.is_whole and table.height <= PIECE_ROWS


def pieces(table: Table, names: Collection[str]) -> Iterator[tuple[int, pl.DataFrame]]:
    """The columns of `names`, piece by piece, each with the number of its first row."""
    start = 0
    for piece in _joined(_sliced(table.parts(names))):
        yield start, piece
        start += piece.height


def _sliced(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    for part in parts:
        size = part.estimated_size()
        height = PIECE_ROWS
        if size > PIECE_BYTES:
            height = min(height, max(1, int(part.height * PIECE_BYTES / size)))
        yield from part.iter_slices(height) if part.height > height else (part,)


def _joined(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    held: list[pl.DataFrame] = []
    num_rows, num_bytes = 0, 0.0
    for part in parts:
        size = part.estimated_size()
        if held and (num_rows + part.height > PIECE_ROWS or num_bytes + size > PIECE_BYTES):
            yield pl.concat(held)
            held, num_rows, num_bytes = [], 0, 0.0
        held.append(part)
        num_rows += part.height
        num_bytes += size
    if held:
        yield pl.concat(held)


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
