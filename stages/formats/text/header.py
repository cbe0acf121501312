"""The header of a CSV file: whether there is one, and whether its names tell the columns apart."""

import re
from collections.abc import Collection, Sequence
from itertools import pairwise

_NUMBER = re.compile(r"[+-]?(?:[0-9][0-9.,]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NUMBERED = re.compile(r"column_([1-9][0-9]*)")


def numbered(width: int) -> list[str]:
    """The names of the columns of a file without a header."""
    return [f"column_{number}" for number in range(1, width + 1)]


def is_header(first: Sequence[str], rows: Sequence[list[str]], expected: Collection[str]) -> bool:
    """Check whether the first line, which has none of the `expected` names, names the columns.

    `rows` are those below it that have as many fields.
    """
    numbers = [int(found[1]) for name in expected if (found := _NUMBERED.fullmatch(name))]
    if numbers and min(numbers) <= len(first):
        return False
    values = [
        text for place, text in enumerate(first) if _are_numbers([row[place] for row in rows])
    ]
    if not values or not are_numbers(values):
        return True
    return len(values) > 1 and _count_up(values)


def are_numbers(texts: Sequence[str]) -> bool:
    """Check whether each text is a number, however it is written."""
    return all(_NUMBER.fullmatch(text) for text in texts)


def _are_numbers(texts: list[str]) -> bool:
    filled = [text for text in texts if text]
    return bool(filled) and are_numbers(filled)


def _count_up(texts: list[str]) -> bool:
    if not all(text.isdecimal() for text in texts):
        return False
    return all(int(after) == int(before) + 1 for before, after in pairwise(texts))


def check_names(names: list[str], rows: Sequence[list[str]]) -> None:
    """Raise ValueError at columns of one name, be it in its case: which is meant?

    `rows` are the first ones below the header.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name.casefold(), []).append(place)
    for same in places.values():
        if len(same) == 1:
            continue
        found = dict.fromkeys(names[place] for place in same)
        numbers = ", ".join(str(place + 1) for place in same)
        if len(found) == 1:
            shown = repr(names[same[0]]) if names[same[0]] else "'' (no name)"
            said = f"it has more than one column named {shown}: columns {numbers}"
        else:
            shown = ", ".join(map(repr, found))
            said = f"it has columns whose names differ in their case alone, {shown}: {numbers}"
        raise ValueError(f"{said}{_contents(same, rows)}: rename one, or remove it")


def _contents(places: list[int], rows: Sequence[list[str]]) -> str:
    if not rows:
        return ""
    is_same = all(len({fields[place] for place in places}) == 1 for fields in rows)
    what = "hold the same" if is_same else "differ"
    return f", which {what} in the first {count_rows(len(rows))}"


def count_rows(count: int) -> str:
    """`count` rows as a person says it."""
    return "row" if count == 1 else f"{count} rows"
