"""The types of a database: each value is kept as it is, or its column is refused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stages.common.errors import UserError

Convert = Callable[[Any], Any]

MAX_DIGITS = 38
# Of the years 1 to 9999, which all readers know, the first and the last.
_MICROSECONDS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
_DAYS = (-719_162, 2_932_896)


@dataclass(frozen=True)
class Column:
    """A column of the snapshot, from one of the query.

    `asked` is what the database is asked for in its place, `None` for the column itself; `declared`
    is the database's word for the type; `lost` counts values for which the type has none.
    """

    name: str
    declared: str
    type: Any
    convert: Convert
    asked: str | None = None


def check_names(names: Sequence[str]) -> None:
    """Raise UserError for names that a table can't have."""
    if not names:
        raise UserError("the query gives no column")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"the query has two columns called '{twice[0]}': give one another name with AS"
        )


def keep(array: Any) -> Any:
    """The values as they are."""
    return array


def keep_time(name: str, type_: Any) -> Convert:
    """The days and times as they are. Raises UserError for 'infinity' and far years."""
    whole, bounds = (pa.int32(), _DAYS) if pa.types.is_date(type_) else (pa.int64(), _MICROSECONDS)

    def convert(array: Any) -> Any:
        span = pc.min_max(array.cast(whole))
        low, high = span["min"].as_py(), span["max"].as_py()
        if low is not None and (low < bounds[0] or high > bounds[1]):
            raise UserError(
                f"the column '{name}' has a time before the year 1 or after 9999, or 'infinity'\n"
                f"  as a gap      NULLIF({name}, 'infinity') AS {name}\n"
                f"  or cut it     LEAST({name}, '9999-12-31') AS {name}"
            )
        return array

    return convert


def to_decimal(name: str, digits: int, scale: int, lost: dict[str, int]) -> Convert:
    """Texts of numbers as decimals. NaN and infinity, which no decimal is, are gaps in `lost`."""
    type_ = pa.decimal128(digits, scale)

    def convert(array: Any) -> Any:
        texts = array.storage if isinstance(array, pa.ExtensionArray) else array
        odd = pc.fill_null(pc.match_substring_regex(texts, "(?i)[a-z]"), False)
        number = pc.sum(odd).as_py() or 0
        if number:
            lost[name] = lost.get(name, 0) + number
            texts = pc.if_else(odd, None, texts)
        return texts.cast(type_)

    return convert


def refuse(columns: Sequence[tuple[str, str, str]]) -> None:
    """Raise UserError for columns (name, type, what to write instead) that can't be kept."""
    if not columns:
        return
    lines = [f"  {name} ({declared}): {instead}" for name, declared, instead in columns]
    raise UserError("\n".join(["a snapshot can't hold these columns as they are:", *lines]))
