"""The names of the rows: the key column, or the row's number from 0; and the hashes of them."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.common.counts import counted
from stages.common.errors import Problem, UserError
from stages.features.schema import Array
from stages.parallel.mapper import Local, Mapper
from stages.prepare.table.table import Shard, Table

KEY = "prepare.key"
MAX_SHOWN = 5
# Python hashes them one by one: of more than these, each core takes a part.
MANY_NAMES = 2_000_000
NAMES_AT_ONCE = 200_000
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Keys:
    """The way to the keys of a part: as int64, or as texts of `width` letters at most."""

    column: str | None
    is_number: bool
    width: int = 0

    def of(self, part: pl.DataFrame, numbers: Array) -> Array:
        """The keys of a part, (rows,); `numbers` (rows,) are those of the rows in the source."""
        if self.column is None:
            return numbers
        column = part[self.column]
        if self.is_number:
            return column.cast(pl.Int64).to_numpy()
        return np.array(column.cast(pl.String).to_list(), dtype=f"<U{self.width}")


def find_keys(table: Table, column: str | None) -> Keys:
    """The keys of a table. Raises UserError when one is missing or stands twice.

    Whole numbers that int64 does not hold, hashes mostly, are kept digit by digit as text.
    """
    if column is None:
        return Keys(None, is_number=True)
    num_gaps, last = 0, None
    is_number = is_ascending = table.schema[column].is_integer()
    for part in table.column_parts(column):
        num_gaps += part.null_count()
        is_number = is_number and part.cast(pl.Int64, strict=False).null_count() == 0
        is_ascending = is_ascending and _is_ascending(part, last)
        last = part[-1] if part.len() else last
    if num_gaps:
        message = f"the key column '{column}' is empty in {counted(num_gaps, 'row')}"
        raise UserError(Problem(message, key=KEY))
    # Numbers that rise from row to row, as most files have them, need no memory.
    twice, num_rows = ([], 0) if is_ascending else _find_twice(table, column)
    if twice:
        message = f"the key column '{column}' names more than one row with: {', '.join(twice)}"
        message += f"; {num_rows:,} of {table.height:,} rows share theirs with another"
        raise UserError(Problem(message, key=KEY))
    return Keys(column, is_number=is_number, width=0 if is_number else _find_width(table, column))


def _find_width(table: Table, column: str) -> int:
    lengths = (part.cast(pl.String).str.len_chars() for part in table.column_parts(column))
    return max([1, *(cast(int, each.max()) for each in lengths if each.len())])


def _is_ascending(part: pl.Series, last: int | None) -> bool:
    """Check whether each number is there and greater than the one before; `last` is before all."""
    if part.null_count():
        return False
    rises = (part.head(-1) < part.slice(1)).all()
    return bool(rises) and (last is None or not part.len() or part[0] > last)


def _find_twice(table: Table, column: str) -> tuple[list[str], int]:
    """The first few keys that stand twice, and how many rows have such a key.

    Where hashes are alike, the keys are compared.
    """
    hashes = np.concatenate([part.hash().to_numpy() for part in table.column_parts(column)])
    hashes.sort()
    alike = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(alike):
        return [], 0
    suspects = [
        part.filter(part.hash().is_in(pl.Series(alike).implode()))
        for part in table.column_parts(column)
    ]
    found = pl.concat(suspects)
    twice = found.filter(found.is_duplicated())
    shown = twice.unique(maintain_order=True).head(MAX_SHOWN)
    return [str(value) for value in shown], twice.len()


@dataclass(frozen=True)
class KeyPiece:
    """A part of a table, the column that names its rows, and their numbers in the source (rows,).

    `source_rows` are those of all rows of the part, whether the table has them or not.
    """

    shard: Shard
    column: str
    source_rows: Array


def named_rows(keys: Keys, piece: KeyPiece) -> Array:
    """The keys of the rows of a part, (rows,)."""
    part, numbers = piece.shard.read([piece.column])
    return keys.of(part, piece.source_rows[numbers - piece.shard.start])


def hash_keys(
    pieces: Iterable[KeyPiece], keys: Keys, seed: int, table: Table, mapper: Mapper
) -> Hashes:
    """A number of 64 bits for the key of each row, which another seed draws anew; (rows,).

    `pieces` are those of `table`.
    """
    is_long = table.height >= MANY_NAMES
    if table.is_on_disk:
        found = mapper.map(partial(_hash_piece, keys, seed), pieces, in_python=is_long)
    else:
        # A part in memory may be long, and goes to another process as its names alone.
        names = (names for piece in pieces for names in _slices(named_rows(keys, piece)))
        found = Local().map(partial(hash_names, seed), names, in_python=is_long)
    # Eight bytes a row, and no second time for their parts.
    hashes, end = np.empty(table.height, np.uint64), 0
    for part in found:
        hashes[end : end + len(part)] = part
        end += len(part)
    assert end == len(hashes)
    return hashes


def _hash_piece(keys: Keys, seed: int, piece: KeyPiece) -> Hashes:
    return hash_names(seed, named_rows(keys, piece))


def _slices(names: Array) -> Iterator[Array]:
    for start in range(0, len(names), NAMES_AT_ONCE):
        yield names[start : start + NAMES_AT_ONCE]


def hash_names(seed: int, names: Array) -> Hashes:
    """A number of 64 bits for each name, which another seed draws anew."""
    start = hashlib.blake2b(f"{seed}:".encode(), digest_size=8)
    digests = []
    for name in names.tolist():
        digest = start.copy()
        digest.update(str(name).encode())
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)
