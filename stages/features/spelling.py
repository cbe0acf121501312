"""The spelling of values in texts, for columns of a table and for JSON alike; needs no library."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

# The largest number of float32, in which a model computes.
MAX_FLOAT32: Final = float(np.finfo(np.float32).max)
TRUE_WORDS: Final = {"true": True, "false": False, "yes": True, "no": False, "t": True, "f": False}
# Blank to Unicode; named here since Python and Rust differ in it.
BLANKS: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
# What makes a number a name: a key, a zip code.
LEADING_ZERO: Final = r"^[+-]?0\d"
# A number as polars reads it in a text.
NUMBER_TEXT: Final = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?inf(?:inity)?|[+-]?nan", re.ASCII | re.IGNORECASE
)
_PLAIN_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_WORDS_OF_YAML = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def as_line(name: str, said: str) -> str:
    """The line of params.yaml that says what a column is: its kind, or `{kind: …, …}`."""
    return f"columns: {{{as_name(name)}: {said}}}"


def as_name(name: str) -> str:
    """The name of a column as YAML has it, in quotes where it needs them."""
    plain = _PLAIN_NAME.fullmatch(name) and name.lower() not in _WORDS_OF_YAML
    return name if plain else json.dumps(name, ensure_ascii=False)


def as_text(word: str) -> str:
    """A text as YAML quotes it: in double quotes where a single one is in it, as in don't."""
    if "'" in word and word.isprintable() and not set(word) & {'"', "\\"}:
        return f'"{word}"'
    return "'" + word.replace("'", "''") + "'"


def as_list(words: Sequence[object]) -> str:
    """Words as a list of YAML."""
    texts = (as_text(str(word)) for word in words)
    shown = (str(w) if isinstance(w, int) else text for w, text in zip(words, texts, strict=True))
    return f"[{', '.join(shown)}]"


def as_markdown(text: str) -> str:
    """Text as Markdown that shows just this text."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


# Excel's for a number that is infinite or none.
DIVIDED_BY_ZERO: Final = "#DIV/0!"
# What may stand between thousands, with the characters that are read as it.
THOUSANDS: Final = {",": ",", ".": ".", " ": " \xa0\u2009\u202f", "'": "'\u2019"}
# A decimal sign, and what stands between thousands.
Signs = tuple[str, str | None]
PLAIN_SIGNS: Final[Signs] = (".", None)
# Those that people write beside the plain ones.
WRITINGS: Final[tuple[Signs, ...]] = (
    (",", None),
    (".", ","),
    (",", "."),
    (".", " "),
    (",", " "),
    (".", "'"),
    (",", "'"),
)
_WHOLE = "(?:0|[1-9][0-9]*)"
_EXPONENT = "(?:[eE][+-]?[0-9]+)?"


def number_pattern(decimal: str, thousands: str | None) -> str:
    """A number in a way of writing, for Python's `re` and for polars; no leading zeros.

    Digits stand in threes between the `thousands`, or together where there are none.
    """
    whole = _WHOLE
    if thousands is not None:
        whole = f"(?:[1-9][0-9]{{0,2}}(?:[{THOUSANDS[thousands]}][0-9]{{3}})+|{_WHOLE})"
    point = re.escape(decimal)
    return rf"^[+-]?(?:{whole}(?:{point}[0-9]+)?|{point}[0-9]+){_EXPONENT}$"


def show_signs(decimal: str, thousands: str | None, unit: str | None = None) -> str:
    """A number in a way of writing, as an example."""
    number = f"1{thousands or ''}234{decimal}5"
    return with_unit(number, unit if unit is None or INSIDE in unit else f" {unit}")


def to_plain(text: str, decimal: str, thousands: str | None) -> str | None:
    """A number in a way of writing as `1234.5`; None where the text is none."""
    if re.fullmatch(number_pattern(decimal, thousands)[1:-1], text) is None:
        return None
    bare = text if thousands is None else re.sub(f"[{THOUSANDS[thousands]}]", "", text)
    return bare.replace(decimal, ".")


# Where the number stands in a unit of two parts: $…/mo.
INSIDE: Final = "…"


def unit_pattern(unit: str) -> str:
    """A text with a unit before or behind it, for Python's `re` and for polars.

    Its three groups are what is left: a sign, the text behind the unit, or the one before it.
    A unit of two parts, `$…/mo`, stands on both sides.
    """
    if INSIDE in unit:
        before, behind = map(re.escape, unit.split(INSIDE, 1))
        return f"^([+-]?){before}[{BLANKS}]?(.+?)[{BLANKS}]?(){behind}$"
    sign = re.escape(unit)
    return f"^(?:([+-]?){sign}[{BLANKS}]?(.+)|(.+?)[{BLANKS}]?{sign})$"


def is_unit(text: str) -> bool:
    """Check whether no part of a number stands at an end of it, or of one of its two parts."""
    parts = text.split(INSIDE, 1)
    return all(part.strip(f"{BLANKS}0123456789+-.,'") == part != "" for part in parts)


def with_unit(number: str, unit: str | None) -> str:
    """A number as its column has it with a unit."""
    before, inside, behind = (unit or "").partition(INSIDE)
    return f"{before}{number}{behind}" if inside else f"{number}{before}"


def without_unit(text: str, unit: str) -> str | None:
    """The text without the unit that stands before or behind it; None where none does."""
    found = re.fullmatch(unit_pattern(unit)[1:-1], text)
    return None if found is None else "".join(part or "" for part in found.groups())


def as_number(
    text: str, decimal: str | None, thousands: str | None, unit: str | None = None
) -> float | None:
    """The number that a text is, in the way of writing of its column; None where it is none."""
    if text == DIVIDED_BY_ZERO:
        return math.nan
    if unit is not None:
        bare = without_unit(text, unit)
        return None if bare is None else as_number(bare, decimal, thousands)
    if decimal is not None and text[-1:].isdigit():
        plain = to_plain(text, decimal, thousands)
        return None if plain is None else float(plain)
    return float(text) if NUMBER_TEXT.fullmatch(text) else None


def explain_signs(text: str, decimal: str | None, thousands: str | None, unit: str | None) -> str:
    """Name the numbers that a text may be in other signs than those of training, after a message.

    Empty where it may be none and training has plain numbers.
    """
    bare = text if unit is None else without_unit(text, unit)
    plain = [None if bare is None else to_plain(bare, *signs) for signs in (PLAIN_SIGNS, *WRITINGS)]
    values = [float(number) for number in plain if number is not None]
    found = dict.fromkeys(f"{value:.12g}" for value in values if math.isfinite(value))
    if not found and (decimal, thousands, unit) in ((None, None, None), (*PLAIN_SIGNS, None)):
        return ""
    said = f"; numbers are written as {show_signs(decimal or '.', thousands, unit)} in training"
    return f"{said}, and this may be {' or '.join(found)}" if found else said


def word_numbers(words: Iterable[str]) -> list[float]:
    """Those of the words for gaps that are numbers, such as -999."""
    return [float(word) for word in words if NUMBER_TEXT.fullmatch(word)]


def is_word(value: object, words: Iterable[str], *, numbers: bool) -> bool:
    """Check whether a value is one of a column's words for gaps; `numbers`: -999.0 is -999."""
    if isinstance(value, str) and value.strip(BLANKS) in words:
        return True
    if isinstance(value, bool) or not (numbers or isinstance(value, int | float)):
        return False
    if isinstance(value, str):
        value = float(value) if NUMBER_TEXT.fullmatch(value) else None
    return isinstance(value, int | float) and value in word_numbers(words)
