"""Texts of a table as every reader gives them: no blanks around them, and none that is empty."""

from collections.abc import Collection, Iterable

import polars as pl

from stages.features.spelling import LEADING_ZERO

TRUTHS = {"true": True, "false": False}
# A column that begins otherwise is not tried as a kind: most are told apart by so many rows.
HEAD_ROWS = 100


def refuse_patterns(names: Iterable[str]) -> None:
    """Raise ValueError at a name that polars takes for a pattern wherever it stands."""
    for name in names:
        if name.startswith("^") and name.endswith("$"):
            raise ValueError(f"its column '{name}' is named as a pattern of names: rename it")


def plain(table: pl.DataFrame) -> pl.DataFrame:
    """`table` with plain texts, whatever kind of file it comes from: an empty one is a gap."""
    refuse_patterns(table.columns)
    # Column by column: an expression takes the name '*' for all of them.
    columns = [column for column in table.iter_columns() if _is_text(column.dtype)]
    texts = [column.cast(pl.String).str.strip_chars() for column in columns]
    return table.with_columns(each.set((each == "").fill_null(value=False), None) for each in texts)


def typed(table: pl.DataFrame, as_text: Collection[str] = ()) -> pl.DataFrame:
    """The texts of a file as what all of a column are: truths, whole numbers, numbers.

    The columns `as_text` stay texts.

    Whole numbers keep every digit. A column with a zero before other digits, as `007`, stays text:
    that is a name, and not the number 7.
    """
    return table.with_columns(
        _typed(column) for column in table.iter_columns() if column.name not in as_text
    )


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _typed(column: pl.Series) -> pl.Series:
    texts = column.drop_nulls()
    if texts.is_empty():
        return column
    head = texts.head(HEAD_ROWS)
    if head.str.to_lowercase().is_in(list(TRUTHS)).all():
        return cast_truths(column)
    if _are_whole(head):
        values = column.cast(pl.Int64, strict=False)
        if values.null_count() > column.null_count() and _are_whole(texts):
            values = column.cast(pl.Int128, strict=False)
            if values.null_count() > column.null_count():
                return column
        if values.null_count() == column.null_count():
            return column if _has_leading_zero(texts) else values
    if head.cast(pl.Float64, strict=False).null_count() == 0:
        values = column.cast(pl.Float64, strict=False)
        if values.null_count() == column.null_count():
            return column if _has_leading_zero(texts) else values
    return column


def cast_truths(column: pl.Series) -> pl.Series:
    """The truths that the texts are; the texts, where one of them is none."""
    words = column.str.to_lowercase()
    truths = words.replace_strict(TRUTHS, default=None, return_dtype=pl.Boolean)
    return column if truths.null_count() > column.null_count() else truths


def _are_whole(texts: pl.Series) -> bool:
    return bool(texts.str.contains(r"^[+-]?\d+$").all())


def _has_leading_zero(texts: pl.Series) -> bool:
    """Check whether a text begins with a zero before other digits."""
    is_zero = texts.str.starts_with("0") | texts.str.starts_with("-0") | texts.str.starts_with("+0")
    return bool(texts.filter(is_zero).str.contains(LEADING_ZERO).any())
