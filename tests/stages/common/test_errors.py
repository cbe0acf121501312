"""Values in messages."""

import pytest

from stages.common.errors import MAX_VALUE_LENGTH, shorten


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (1e-4, "0.0001"),
        ("abc", "abc"),
        ({"a": True, "b": ["1", 2, "on it"], "c": None}, '{a: true, b: ["1", 2, on it], c: null}'),
        ([], "[]"),
        ("postgresql://me:secret@there/db", "postgresql://***@there/db"),
        ("x" * 100, "x" * (MAX_VALUE_LENGTH - 1) + "…"),
    ],
)
def test_a_value_is_shown_as_params_yaml_has_it(value: object, shown: str) -> None:
    assert shorten(value) == shown
