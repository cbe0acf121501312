"""A column of a table as numbers, truths, categories or images: for kinds, targets and formats.

Each function raises UserError, with examples, for a column that holds something else; `key` is the
parameter that names the file.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import polars as pl

from stages.common.counts import counted
from stages.common.errors import Problem, UserError
from stages.features.numbers import Spread, image_shape, join_spreads, moments_of, spread_of
from stages.features.schema import KINDS, Array, Feature, Moments
from stages.features.spelling import BLANKS, MAX_FLOAT32, TRUE_WORDS, explain_signs, word_numbers
from stages.features.written import read_numbers

# Of more in the train rows, the most frequent but one are kept.
MAX_CATEGORIES = 1000
MOSTLY = 0.5
NO_COUNTS = pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})


def fits_float32(scaled: pl.Series) -> bool:
    """Check whether float32 can hold every value of a float64 column without NaN."""
    smallest, largest = cast(float | None, scaled.min()), cast(float | None, scaled.max())
    return smallest is None or largest is None or max(-smallest, largest) <= MAX_FLOAT32


def too_large(values: pl.Series, key: str) -> UserError:
    """The mistake of a column whose standardised `values` float32 can't hold."""
    largest = max(values.drop_nulls(), key=abs)
    message = (
        f"the column '{values.name}' holds numbers too large to compute with, such as "
        f"{largest:g}; correct them in the file"
    )
    return UserError(Problem(message, key=key))


def as_numeric(column: pl.Series, key: str, feature: Feature | None = None) -> pl.Series:
    """The column as float64 with nulls for gaps, NaN and infinities among them.

    Texts are read as `feature` says that its numbers are written. Raises UserError when it holds
    something that is no number, with examples.
    """
    words = [] if feature is None else word_numbers(feature.missing_words or [])
    if column.dtype.is_float() and column.is_finite().all() and not words:
        return column.cast(pl.Float64)
    column = _plain(column)
    if feature is not None and feature.decimal is not None and column.dtype == pl.String:
        values = read_numbers(column, feature.decimal, feature.thousands, feature.unit)
    else:
        values = _cast(column, pl.Float64(), "a number", key)
    _stop_at_lost_values(column, values, "a number", key, feature)
    values = values.set(values.is_in(words), None) if words else values
    return pl.select(pl.when(values.is_finite()).then(values)).to_series()


def column_moments(parts: Iterable[pl.Series], key: str, feature: Feature | None = None) -> Moments:
    """Mean and population deviation of a column of numbers, in float64, gaps left out."""
    spreads: list[Spread] = []
    name, kind = "", _precision(pl.Series())
    for column in parts:
        name, kind = column.name, _precision(column)
        values = as_numeric(column, key, feature).drop_nulls().to_numpy()
        spreads += [spread_of(values)] if values.size else []
    if not spreads:
        message = f"the column '{name}' has no value in the train split: exclude it"
        named = f"prepare.columns.{name}"
        raise UserError(Problem(message, key=named, allowed=("exclude",)))
    spread = join_spreads(spreads)
    moments = moments_of(spread, kind)
    # Not finite where the sum of the values, or of their squares, is too large.
    if not math.isfinite(moments.mean + moments.deviation):
        raise too_large(pl.Series(name, [spread.high, spread.low]), key)
    return moments


def _precision(column: pl.Series) -> type[np.floating]:
    return np.float32 if column.dtype == pl.Float32 else np.float64


def as_boolean(column: pl.Series, key: str) -> pl.Series:
    """The column as booleans with nulls for gaps.

    Words such as 'yes' and 'no' are understood, and 0 and 1 however they are written: `1.0` in a
    file of texts is what it is in a file of numbers. Raises UserError when it holds something
    else, with examples.
    """
    column = _plain(column)
    if column.dtype == pl.String:
        texts = column.str.strip_chars(BLANKS).str.to_lowercase()
        words = texts.replace_strict(TRUE_WORDS, default=None, return_dtype=pl.Boolean)
        values = words.fill_null(_digits(texts.cast(pl.Float64, strict=False)))
    elif column.dtype.is_numeric():
        values = _digits(column)
    else:
        values = _cast(column, pl.Boolean(), "true or false", key)
    _stop_at_lost_values(column, values, "true or false", key)
    return values


def _digits(numbers: pl.Series) -> pl.Series:
    """Numbers as booleans, null for all but 0 and 1."""
    return numbers.cast(pl.Float64).replace_strict(
        {0.0: False, 1.0: True}, default=None, return_dtype=pl.Boolean
    )


def fill_nan(values: pl.Series) -> Array:
    """Numbers or truths as float64, NaN where there is none."""
    return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _plain(column: pl.Series) -> pl.Series:
    """Texts as text, however the file holds them; NaN as a gap."""
    if column.dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    return column.fill_nan(None) if column.dtype.is_float() else column


def _cast(column: pl.Series, kind: pl.DataType, what: str, key: str) -> pl.Series:
    """The column as `kind`, null where a value can't be one; an error where its type can't."""
    _stop_at_nested(column, what, key)
    if column.dtype.is_temporal():
        # A date would become its days, a duration its microseconds or nanoseconds: the model would
        # learn a unit that another file need not have.
        problem = _wrong_type(column, what, key)
        message = f"{problem.message}; write a number of days or of seconds in the file"
        raise UserError(replace(problem, message=message))
    try:
        return column.cast(kind, strict=False)
    except pl.exceptions.PolarsError:
        raise UserError(_wrong_type(column, what, key)) from None


def _stop_at_nested(column: pl.Series, what: str, key: str) -> None:
    if column.dtype.is_nested():
        raise UserError(_wrong_type(column, what, key))


def _wrong_type(column: pl.Series, what: str, key: str) -> Problem:
    return Problem(f"the column '{column.name}' is of type {column.dtype}, not {what}", key=key)


def _stop_at_lost_values(
    before: pl.Series, after: pl.Series, what: str, key: str, feature: Feature | None = None
) -> None:
    lost = before.filter(after.is_null() & before.is_not_null())
    if lost.len():
        examples = ", ".join(repr(value) for value in lost.unique(maintain_order=True).head(5))
        values = counted(lost.len(), "value that is", "values that are")
        message = f"the column '{before.name}' holds {values} not {what}: {examples}"
        if feature is not None and lost.dtype == pl.String:
            message += explain_signs(lost[0], feature.decimal, feature.thousands, feature.unit)
        raise UserError(Problem(message, key=key))


def as_category(column: pl.Series) -> pl.Series:
    """The column as text, as categories are compared: the one place where they get their names.

    1 and 1.0 are the same. Blanks around a text are no part of it, `é` is one category whether
    it is composed or not, and a text without anything in it is a gap, as NaN is: a name is the
    same from each kind of file.
    """
    if column.dtype.is_float():
        # Value by value: the other rows of a table must not change what a category is called.
        whole = column.cast(pl.Int64, strict=False)
        text = (
            pl.when(whole == column).then(whole.cast(pl.String)).otherwise(column.cast(pl.String))
        )
        return pl.select(pl.when(column.is_finite()).then(text)).to_series()
    if isinstance(column.dtype, pl.Decimal):
        # `2.50` is 2.5, and `10` stays 10.
        return column.cast(pl.String).str.replace(r"(\.\d*?)0+$", "$1").str.strip_chars_end(".")
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    texts = column.cast(pl.String).str.strip_chars(BLANKS)
    if (texts.str.len_bytes() > texts.str.len_chars()).any():
        texts = texts.str.normalize("NFC")
    return texts.set(texts == "", None)


def check_single(column: pl.Series) -> None:
    """Stop at lists and records."""
    if isinstance(column.dtype, pl.List | pl.Array | pl.Struct):
        raise undecided(column, "holds lists or records")


def check_categories(column: pl.Series) -> None:
    """Stop at many values of which more than half are different, where nobody said that they are
    categories.
    """
    values = as_category(column).drop_nulls()
    num_values = values.n_unique()
    if num_values > MAX_CATEGORIES and num_values > MOSTLY * values.len():
        message = (
            f"has {num_values} different values in {values.len()} rows: as categories they say "
            "little of new rows"
        )
        raise undecided(column, message)


def undecided(column: pl.Series, why: str) -> UserError:
    """The mistake of a column of which a person has to say what it is."""
    key = f"prepare.columns.{column.name}"
    allowed = (*KINDS, "exclude")
    return UserError(Problem(f"the column '{column.name}' {why}", key=key, allowed=allowed))


def add_counts(counts: pl.DataFrame, values: pl.Series) -> pl.DataFrame:
    """`counts` (value, count) with those of more values, gaps left out."""
    found = values.drop_nulls().alias("value").value_counts(name="count")
    found = found.with_columns(pl.col("count").cast(pl.Int64))
    if not counts.height:
        return found
    return pl.concat([counts, found]).group_by("value").agg(pl.col("count").sum())


def encode_codes(
    column: pl.Series, categories: Sequence[str], key: str, gap_code: int = 0
) -> Array:
    """Codes from 1 in the order of `categories`, `gap_code` for a null, 0 for anything else.

    (rows,) int64.

    Raises UserError when the column holds lists or records.
    """
    _stop_at_nested(column, "a category", key)
    codes = {category: code for code, category in enumerate(categories, start=1)}
    return (
        as_category(column)
        .replace_strict({**codes, None: gap_code}, default=0, return_dtype=pl.Int64)
        .to_numpy()
    )


def first_shape(column: pl.Series) -> list[int]:
    """The shape of the first array of a column of arrays of numbers."""
    dtype: pl.DataType = column.dtype
    shape: list[int] = []
    values = column.drop_nulls()
    value = values[0] if values.len() else None
    while isinstance(value, pl.Series):
        shape.append(value.len())
        value = value[0] if value.len() else None
    if not isinstance(value, int | float):
        raise undecided(column, f"is of type {dtype}, not an array of numbers")
    return shape


def image_array(column: pl.Series, feature: Feature, key: str) -> Array:
    """The images of a column as (rows, channels, height, width), uint8 or float32.

    Raises UserError when one is missing, has gaps or is of another shape.
    """
    shape = image_shape(feature)
    wrong = f"the column '{feature.name}' must hold arrays of numbers of shape {shape}"
    if column.null_count():
        row = column.is_null().arg_true()[0]
        raise UserError(Problem(f"{wrong}; row {row} has none", key=key))
    try:
        flat = column.cast(pl.Array(_number_type(column), shape))
    except pl.exceptions.PolarsError:
        raise UserError(Problem(f"{wrong}, not {column.dtype}", key=key)) from None
    values = flat.to_numpy().reshape(-1, *shape)
    if values.dtype != np.uint8:
        with np.errstate(over="ignore"):
            floats = values.astype(np.float32)
        gaps = ~np.isfinite(floats).reshape(len(values), -1).all(axis=1)
        if gaps.any():
            row = int(gaps.argmax())
            what = "numbers too large to compute with" if np.isfinite(values[row]).all() else "gaps"
            raise UserError(Problem(f"{wrong}; row {row} has {what} in it", key=key))
        values = floats
    if feature.layout == "HW":
        values = values[:, None]
    elif feature.layout == "HWC":
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values)


def _number_type(column: pl.Series) -> pl.DataType:
    """The type of the numbers in a column of arrays. Raises PolarsError when they are none."""
    inner: pl.DataType = column.dtype
    while isinstance(inner, pl.List | pl.Array):
        inner = inner.inner  # type: ignore[assignment]
    if not inner.is_numeric():
        raise pl.exceptions.SchemaError(f"{inner} is no number")
    return inner
