"""One column at a time: its values in short, and what is done with it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

import polars as pl

from stages.common.errors import UserError
from stages.features.schema import Feature
from stages.features.spelling import as_line
from stages.features.words.recognise import have_several_words
from stages.prepare.columns.periods import say_periods
from stages.prepare.columns.units import say_numbers

NUM_EXAMPLES, MAX_EXAMPLE = 3, 20
LEFT_OUT = "left out"
# Roles of columns that no model sees.
NOT_LEARNED = (LEFT_OUT, "key", "target", "group", "weight")
MAX_REASONS = 12
NO_NAME = "the one without a name"


@dataclass(frozen=True)
class Column:
    """A line of the table that `reprise init` prints.

    `role`: the kind that is learned from, or `key`, `target`, `time`, `group`, `weight`,
    `left out`.
    `setting` is what `prepare.columns` has to say of it; None: nothing. `why` gives the reason.
    """

    name: str
    role: str
    missing: int
    distinct: int | None
    values: str
    why: str
    setting: str | dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)


def describe(
    column: pl.Series, role: str, why: str, setting: str | dict[str, Any] | None = None
) -> Column:
    """The line of a column, counted over all of its rows."""
    gaps = column.null_count()
    if column.dtype.is_float():
        gaps += int(column.is_nan().sum())
    distinct = None if column.dtype.is_nested() else column.drop_nulls().n_unique()
    return Column(column.name, role, gaps, distinct, _values(column), why, setting)


def stop_at_none(columns: Iterable[Column]) -> None:
    """Stop where nothing is left to learn from. Raises UserError with the reason of each column."""
    left = [column for column in columns if column.role not in NOT_LEARNED]
    out = [column for column in columns if column.role == LEFT_OUT]
    if left:
        return
    lines = [f"  {c.name or NO_NAME}: {c.why}" for c in out[:MAX_REASONS]]
    if len(out) > MAX_REASONS:
        lines.append(f"  and {len(out) - MAX_REASONS} more")
    if named := [column.name for column in out if column.name]:
        lines.append(f"say what one is: --column {quote(f'{named[0]}=…')} (docs/init.md)")
    raise UserError("\n".join(["no column is left to learn from", *lines]))


def say_kind(feature: Feature, column: pl.Series) -> str:
    """The reason for a column's kind, and what a model gets of it."""
    gaps = ", and 0 or 1 for a gap" if column.null_count() else ""
    if feature.kind == "numeric":
        return f"{_type(column)}; standardised{gaps}"
    if feature.kind == "boolean":
        return f"true and false{gaps}"
    if feature.kind == "categorical":
        return "texts that repeat; a code each"
    if feature.kind == "image":
        shape = "×".join(map(str, feature.shape or []))
        return f"arrays of numbers, {shape} (channels, height, width)"
    if column.dtype.is_temporal():
        return f"{_type(column)}, read as {feature.kind}{gaps}"
    return f"{_type(column)} that read as {feature.kind}"


def say_looks(column: pl.Series) -> str | None:
    """A reason for leaving out texts that look like times or numbers; None for others."""
    return say_periods(column) or say_numbers(column)


def say_words(column: pl.Series) -> str:
    """The line that learns from the words of texts, where most have several; else nothing."""
    texts = column.drop_nulls()
    if texts.dtype != pl.String or not have_several_words(texts):
        return ""
    return f"; their words may: {as_line(column.name, 'text')}"


def _type(column: pl.Series) -> str:
    if column.dtype.is_temporal():
        return "dates" if column.dtype == pl.Date else "times"
    if column.dtype.is_integer():
        return "whole numbers"
    return "numbers" if column.dtype.is_numeric() else "texts"


def _values(column: pl.Series) -> str:
    """The range of numbers and times, else the first different values."""
    values = column.drop_nulls()
    if values.is_empty():
        return "none"
    if column.dtype.is_nested():
        return "records" if column.dtype == pl.Struct else "arrays"
    if column.dtype.is_numeric() or column.dtype.is_temporal():
        return f"{_shown(values.min())} to {_shown(values.max())}"
    first = values.unique(maintain_order=True).head(NUM_EXAMPLES)
    rest = ", …" if values.n_unique() > NUM_EXAMPLES else ""
    return ", ".join(_short(str(value)) for value in first) + rest


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_EXAMPLE else text[: MAX_EXAMPLE - 1] + "…"


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
