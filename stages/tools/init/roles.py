"""Columns that are no features: keys, constants and copies of others."""

import re
from collections.abc import Iterator
from shlex import quote

import polars as pl

from stages.features.columns import as_category
from stages.features.numbers import Rows

# What rows may be of, and be named by without a blank: userid, patientid, casenumber.
_NOUNS = (
    "account|book|case|child|client|customer|cust|employee|emp|firm|household|invoice|item|member|"
    "movie|obs|order|participant|passenger|patient|pat|person|product|record|respondent|seller|"
    "session|song|student|subject|subj|ticket|track|transaction|trans|tree|trip|user|visit|p|u"
)
# A name that says that the values are names: id, ID#, customer_id, userid, order_number, uuid.
_ID_NAME = re.compile(
    rf"(?i:(?:.*[_\W])?(?:id\W?|uuid|guid)|(?:{_NOUNS})id|(?:{_NOUNS})[_ ]?num(?:ber)?)|.*(?:Id|ID)"
)
# Others say it of a column without a repetition alone: a price_index is an amount.
_KEY_NAME = re.compile(rf"{_ID_NAME.pattern}|(?i:(?:.*[_\W])?(?:key|index|idx|nr|no)|rownames?)")
# What a row may be of. A subject may be that of a mail, too: names of rows have no blanks.
_ROW_NAME = re.compile(r"(?i:sample|subject|patient|barcode)")
# What several rows may be of.
_OWNER_NAME = re.compile(
    r"(?i:animal|child|client|customer|household|member|participant|patient|person|respondent|"
    r"student|subj|subject|user)"
)
# A column with a value for so many rows tells them apart, and from fewer different ones on nobody
# divides by it.
MAX_ROWS_OF_ONE, MIN_OWNERS = 50, 10


def is_key(column: pl.Series, rows: Rows) -> bool:
    """Check whether a column names the rows: one value each, by its name or as their number.

    `rows` (rows,) are the numbers of the rows.
    """
    if column.null_count() or not (column.dtype.is_integer() or column.dtype == pl.String):
        return False
    if column.n_unique() < column.len():
        return False
    name = column.name.strip()
    if _ROW_NAME.fullmatch(name) and column.dtype == pl.String:
        return not column.str.contains(r"\S\s+\S").any()
    return _KEY_NAME.fullmatch(name) is not None or counts_up(column, rows)


def counts_up(column: pl.Series, rows: Rows) -> bool:
    """Check whether the values go up by one from row to row, from 0 or 1 on.

    `rows` (rows,) are the numbers of the rows.
    """
    if not column.dtype.is_integer() or column.is_empty() or column[0] not in (0, 1):
        return False
    return not column.null_count() and bool((column - column[0] == pl.Series(rows)).all())


def say_another_key(name: str) -> str:
    """The reason for leaving a further key out; one that counts the rows may be an amount."""
    if _KEY_NAME.fullmatch(name.strip()) or _ROW_NAME.fullmatch(name.strip()):
        return "names the rows too"
    return f"numbers the rows too; --column {quote(f'{name}=numeric')} learns from it"


def names_repeat(column: pl.Series) -> bool:
    """Check whether whole numbers or texts name by their name what has several rows each."""
    name = column.name.strip()
    is_named = _ID_NAME.fullmatch(name) or _OWNER_NAME.fullmatch(name)
    if not is_named or not (column.dtype.is_integer() or column.dtype == pl.String):
        return False
    num, count = column.drop_nulls().n_unique(), column.count()
    return num >= MIN_OWNERS and num < count <= num * MAX_ROWS_OF_ONE


def names_hardly_repeat(column: pl.Series) -> bool:
    """Check whether a column of categories has another one in more than half of its rows."""
    names = as_category(column).drop_nulls()
    return names.n_unique() > names.len() / 2


def find_copies(table: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Columns that hold in each row what an earlier one holds, with that one."""
    seen: dict[tuple[object, int], list[str]] = {}
    for column in table.iter_columns():
        if column.dtype.is_nested():
            continue
        digest = (column.dtype, int(column.hash().sum()))
        for name in seen.setdefault(digest, []):
            if table[name].equals(column, check_names=False):
                yield column.name, name
                break
        else:
            seen[digest].append(column.name)
