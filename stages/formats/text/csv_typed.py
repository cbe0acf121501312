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
WINDOW_BYTES = 1 << 18
Codes = npt.NDArray[np.uint8]


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
    if not len(codes) or codes[0] <= _BLANK:
        return False
    for window in _windows(codes, ahead=1):
        ends = (window == ord(separator)) | (window == _LF)
        blanks = (window <= _BLANK) & ~ends
        if blanks.any():
            beside = ends | blanks
            if ((blanks[1:] & beside[:-1]) | (blanks[:-1] & beside[1:])).any():
                return False
    return True


def _windows(codes: Codes, ahead: int) -> Iterator[Codes]:
    """The bytes some at a time, as the processor's cache holds them, and `ahead` more."""
    for start in range(0, len(codes), WINDOW_BYTES):
        yield codes[start : start + WINDOW_BYTES + ahead]


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
    # A line's end before the first text, so that each has a sign before it.
    codes = np.frombuffer(b"\n" + content, np.uint8)
    found = []
    for number, window in enumerate(_windows(codes, ahead=3)):
        is_zero = (window[1:-1] == _ZERO) & (window[2:] >= _ZERO) & (window[2:] <= _NINE)
        places = np.flatnonzero(is_zero) + 1
        before = window[places - 1]
        signed = ((before == _PLUS) | (before == _MINUS)) & (places > 1)
        before = np.where(signed, window[places - 2], before)
        begins = (before == ord(separator)) | (before == _LF)
        found.append(places[begins] + number * WINDOW_BYTES)
    starts = np.concatenate(found)
    if not len(starts):
        return set()
    is_end = (codes[1:] == ord(separator)) | (codes[1:] == _LF)
    ends = np.flatnonzero(is_end)
    return set((np.searchsorted(ends, starts - 1) % width).tolist())
