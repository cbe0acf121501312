"""Whole records of CSV as numbers at once: the values that their texts have, in half of the time.

What a column is has been seen in the rows before; texts, and whatever is no number of that type,
go the way of `plain_values`.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stages.formats.text.csv_scan import Block
from stages.formats.text.pieces import mark_last
from stages.formats.text.plain_values import typed

_READ_AS = (pl.Int64, pl.Float64)
_LF, _BLANK, _ZERO, _NINE = b"\n 09"
_PLUS, _MINUS = b"+-"


def join_blocks(blocks: Iterable[Block], num_bytes: int) -> Iterator[Block]:
    """The same rows in blocks of `num_bytes` or somewhat more."""
    waiting: list[Block] = []
    for block, is_last in mark_last(blocks):
        waiting.append(block)
        if is_last or sum(len(each.content) for each in waiting) >= num_bytes:
            yield Block(
                waiting[0].start,
                b"".join(each.content for each in waiting),
                sum(each.num_whole for each in waiting),
                [damage for each in waiting for damage in each.damaged],
            )
            waiting = []


def is_plain(content: bytes, separator: str) -> bool:
    """Check whether no field of whole records begins or ends with a blank, or is quoted."""
    if b'"' in content or not content.isascii():
        return False
    codes = np.frombuffer(content, np.uint8)
    ends = (codes == ord(separator)) | (codes == _LF)
    blanks = (codes <= _BLANK) & ~ends
    if not blanks.any():
        return True
    beside = ends | blanks
    return not ((blanks[1:] & beside[:-1]) | (blanks[:-1] & beside[1:])).any() and not blanks[0]


def read_typed(
    block: Block, separator: str, names: list[str], seen: Sequence[pl.DataType | None]
) -> pl.DataFrame | None:
    """The rows of a block by the types that were `seen`; None where they may not be so.

    A column of texts, or of which nothing was seen, is a text here.
    """
    if not block.num_whole or not any(dtype in _READ_AS for dtype in seen):
        return None
    if not is_plain(block.content, separator):
        return None
    names_zeros = _with_leading_zeros(block.content, separator, len(names))
    as_types = [
        dtype if dtype in _READ_AS and number not in names_zeros else pl.String()
        for number, dtype in enumerate(seen)
    ]
    columns = [f"column_{number}" for number in range(1, len(names) + 1)]
    try:
        table = pl.read_csv(
            block.content,
            has_header=False,
            separator=separator,
            schema=dict(zip(columns, as_types, strict=True)),
        )
    except pl.exceptions.PolarsError:
        return None
    # As for texts: a difference would give rows others' values.
    if table.shape != (block.num_whole, len(names)):
        raise ValueError(f"{block.num_whole} rows from row {block.start} on became {table.height}")
    table.columns = names
    others = [
        name
        for name, is_now, was in zip(names, as_types, seen, strict=True)
        if is_now == pl.String and was != pl.String
    ]
    return table.with_columns(typed(table.select(others)).get_columns()) if others else table


def _with_leading_zeros(content: bytes, separator: str, width: int) -> set[int]:
    """The numbers of the columns in which a text begins with a zero before other digits."""
    codes = np.frombuffer(content, np.uint8)
    is_end = (codes == ord(separator)) | (codes == _LF)
    begins = np.empty(len(codes), np.bool_)
    begins[0], begins[1:] = True, is_end[:-1]
    begins[1:] |= begins[:-1] & ((codes[:-1] == _PLUS) | (codes[:-1] == _MINUS))
    found = begins[:-1] & (codes[:-1] == _ZERO)
    found &= (codes[1:] >= _ZERO) & (codes[1:] <= _NINE)
    places: npt.NDArray[np.int64] = np.flatnonzero(found)
    if not len(places):
        return set()
    return set((np.searchsorted(np.flatnonzero(is_end), places) % width).tolist())
