"""The message of a target with values that have no logarithm."""

import pytest

from stages.prepare.low_values import LowValues, stop_at_low


@pytest.mark.parametrize(("number", "rows"), [(1, "1 row"), (2, "2 rows"), (12_345, "12,345 rows")])
def test_the_rows_are_counted(number: int, rows: str) -> None:
    message = stop_at_low("price", "log1p", LowValues(number, -3)).message
    assert message.endswith(f"is -1 or less in {rows}, the smallest -3")
