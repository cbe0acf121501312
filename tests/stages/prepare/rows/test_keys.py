"""The names of rows of a table in parts: none stands twice, and none is cut off."""

import polars as pl
import pytest

from stages.common.errors import UserError
from stages.prepare.rows.keys import find_keys
from stages.prepare.table.table import Table


def in_parts(*parts: list[object], dtype: pl.DataType) -> Table:
    """A table of one column in parts."""
    frames = [pl.DataFrame({"key": pl.Series(part, dtype=dtype)}) for part in parts]
    return Table(frames[0].schema, [frame.height for frame in frames], frames)


@pytest.mark.parametrize(
    ("parts", "twice"),
    [
        ([[1, 2], [2, 3]], "2"),
        ([[3, 1], [2, 3]], "3"),
        ([[1, 2], [], [1, 2]], "1, 2"),
        ([[2, 2], [3]], "2"),
    ],
)
def test_a_key_that_stands_twice_is_named_in_whichever_parts(
    parts: list[list[object]], twice: str
) -> None:
    with pytest.raises(UserError, match=f"names more than one row with: {twice}; "):
        find_keys(in_parts(*parts, dtype=pl.Int64()), "key")


def test_numbers_in_any_order_are_keys() -> None:
    for parts in ([[1, 2], [], [3]], [[3, 1], [2]]):
        assert find_keys(in_parts(*parts, dtype=pl.Int64()), "key").is_number


def test_a_number_too_long_for_int64_makes_texts_of_all_keys() -> None:
    table = in_parts([10**18, 2], [2**64 - 1], dtype=pl.UInt64())
    keys = find_keys(table, "key")
    assert (keys.is_number, keys.width) == (False, 20)
    assert find_keys(in_parts([12345], [2**64 - 1], dtype=pl.UInt64()), "key").width == 20
    named = find_keys(in_parts(["a", "longer"], ["bb"], dtype=pl.String()), "key")
    assert named.width == len("longer")


def test_a_gap_at_the_head_of_a_part_is_told() -> None:
    with pytest.raises(UserError, match="the key column 'key' is empty in 1 row"):
        find_keys(in_parts([1, 2], [None, 5], dtype=pl.Int64()), "key")
