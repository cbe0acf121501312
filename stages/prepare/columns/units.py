"""Units of numbers in texts: 1,861 €, $3, 285 640 km, 15.2 %, $345/mo.

A unit is what stands behind the digits; before them only money does, since a word there makes a
name, as in PC 17 or Store 3.
"""

from collections.abc import Mapping

import polars as pl

from stages.features.spelling import (
    BLANKS,
    INSIDE,
    LEADING_ZERO,
    as_line,
    is_unit,
)
from stages.prepare.columns.looks import ANY_NUMBER, say_line
from stages.prepare.columns.written import Written

# Of the values: with more of them, a column is one of numbers.
MAJORITY = 0.5
# Of texts with a unit: as many values may be words, which are named.
MAX_WORDS = 5
# Of texts with several units: as many may they be, and of as many characters.
MAX_UNITS, MAX_UNIT = 10, 12
_CODES = "EUR|USD|GBP|CHF|JPY|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|CZK|HUF|BRL|MXN|ZAR|KRW|Rs|Fr|kr"
_MONEY = rf"(?:[A-Z]{{0,3}}\p{{Sc}}|{_CODES})"
_DIGITS = rf"[0-9](?:[0-9.,'’{BLANKS}]*[0-9])?"
_NUMBER = rf"[+-]?(?:{_DIGITS}|[.,][0-9]+)"
_BEFORE = rf"^[+-]?(?P<unit>{_MONEY})[{BLANKS}]?{_NUMBER}$"
_BEHIND = rf"^{_NUMBER}[{BLANKS}]?(?P<unit>[^0-9.,'’+:/{BLANKS}-](?:.*[^0-9{BLANKS}])?)$"
# A part behind the number may begin with the sign for 'per' where money stands before it.
_PER = rf"/?[^0-9.,'’+:/{BLANKS}-](?:.*[^0-9{BLANKS}])?"
_BOTH = rf"^[+-]?({_MONEY})[{BLANKS}]?{_NUMBER}[{BLANKS}]?({_PER})$"
_PLAIN = r"^[+-]?[0-9]+(?:\.[0-9]+)?$"
_DATE = r"^[0-9]{1,4}\.[0-9]{1,2}\.[0-9]"

# So many digits in a row at the start are an id.
_LONG = r"^[0-9]{8}"
_LAKHS = r"^[+-]?[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?$"
_MONTH = (
    "^(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?$"
)


def units(texts: pl.Series) -> pl.Series:
    """The unit of each text; null where it is no number with one."""
    both = texts.str.extract(_BOTH, 1) + INSIDE + texts.str.extract(_BOTH, 2)
    before = texts.str.extract(_BEFORE)
    one = before.zip_with(before.is_not_null(), texts.str.extract(_BEHIND))
    return one.zip_with(one.is_not_null(), both)


def find_unit(column: pl.Series) -> str | None:
    """The one unit of all texts of a column; None where there is none."""
    if column.dtype != pl.String:
        return None
    filled = column.drop_nulls()
    found = units(filled.head(1)).to_list()
    if not found or found[0] is None or not is_unit(found[0]):
        return None
    return found[0] if bool((units(filled) == found[0]).fill_null(value=False).all()) else None


def say_numbers(column: pl.Series) -> str | None:
    """A reason for leaving out texts that look like numbers, with the remedy; None for others."""
    if column.dtype != pl.String:
        return None
    filled = column.drop_nulls()
    found, is_id = units(filled), filled.str.contains(_LONG)
    bare = filled.str.contains(f"{ANY_NUMBER}|{_LAKHS}") & ~filled.str.contains(
        f"{_DATE}|{LEADING_ZERO}"
    )
    several = found.drop_nulls().unique(maintain_order=True).to_list()
    if len(several) > 1 or bare.any():
        # Several units of a column are a few, short, and none of a code such as 030640615X.
        found, bare = found.set(is_id, None), bare & ~is_id
        if not _may_be_units(found.drop_nulls()):
            found = found.set(found.is_not_null(), None)
        several = found.drop_nulls().unique(maintain_order=True).to_list()
    looks = found.is_not_null() | bare
    is_plain = filled.filter(looks).str.contains(_PLAIN).all()
    if looks.sum() <= MAJORITY * filled.len() or is_plain:
        return None
    words = filled.filter(~looks).unique(maintain_order=True).to_list()
    shown = ", ".join(map(repr, filled.filter(looks).unique(maintain_order=True).head(3)))
    remedy = "write them as 1234.5 in the file"
    if len(several) == 1 and is_unit(several[0]) and not bare.any() and len(words) <= MAX_WORDS:
        remedy = f"say so: {say_line(column.name, words, 'numeric', several[0])}"
    elif several:
        line = as_line(column.name, "{kind: numeric, unit: '…'}")
        remedy = f"write one unit behind each in the file, and {line}; or {remedy}"
    return f"texts that look like numbers, as {shown}: {remedy}"


def _may_be_units(found: pl.Series) -> bool:
    """Check whether the units of texts are few and short, and no months."""
    different = found.unique()
    is_short = different.str.len_chars() <= MAX_UNIT
    return (
        different.len() <= MAX_UNITS
        and 2 * different.len() <= max(found.len(), MAX_WORDS)
        and bool((is_short & ~different.str.contains(_MONTH)).all())
    )


def describe_signs(setting: Mapping[str, object]) -> str:
    """The unit of a setting of `prepare.columns` and the signs beside it, for people."""
    signs = [f"{name} '{setting[name]}'" for name in ("thousands", "decimal") if name in setting]
    return ", ".join([f"with the unit '{setting['unit']}'", *signs])


def with_signs(setting: Mapping[str, object], how: Written) -> dict[str, object]:
    """A setting with a unit, and with the signs of the numbers where they are not plain."""
    decimal = {"decimal": ","} if how.decimal == "," else {}
    thousands = {} if how.thousands is None else {"thousands": how.thousands}
    return {**setting, **decimal, **thousands}
