"""The writing of columns, found in the sample of a long table, and read in all its parts."""

from collections.abc import Callable
from functools import partial

import polars as pl

from stages.common.errors import Problem, UserError, shorten
from stages.features.written import Gaps, drop_words, read_numbers
from stages.formats.reading import Noticed
from stages.formats.text.plain_values import cast_truths
from stages.prepare.columns.written import Written, read_written
from stages.prepare.params import PrepareParams
from stages.prepare.table.sample import Sample
from stages.prepare.table.table import Table, in_memory


def apply_writing(
    table: Table, sample: Sample, params: PrepareParams
) -> tuple[Table, Sample, dict[str, Written], list[str]]:
    """The table with gaps for words and numbers for texts of numbers; the sample is read alike.

    The writing is found in the sample and checked in every part; `read_written` returns the rest.
    Raises UserError, too, where a later value is not written as those of the sample are.
    """
    if table.is_whole:
        read, written, lines = read_written(sample.table, params, has_commas=table.has_commas)
        return in_memory(read), Sample(read, sample.rows), written, lines
    read, written, lines = read_written(
        sample.table, params, Noticed(), has_commas=table.has_commas
    )
    changes: dict[str, Callable[[pl.Series], pl.Series]] = {}
    types: dict[str, pl.DataType] = {}
    noticed = Noticed()
    for name, how in written.items():
        dtype, was = read.schema[name], table.schema[name]
        if dtype == was and not how.words:
            continue
        if was == pl.String and dtype.is_integer():
            dtype = _whole_or_not(table, name, how, dtype)
        start = 0
        for part in table.column_parts(name):
            values = _convert(part, how, dtype, noticed.gaps, start)
            noticed.add_infinite(name, values if was == pl.String else values.head(0))
            start += part.len()
        changes[name], types[name] = partial(_convert, how=how, dtype=dtype), dtype
    read = read.with_columns(read[name].cast(dtype) for name, dtype in types.items())
    found = Sample(read, sample.rows)
    return table.changed(changes, types), found, written, [*noticed.lines(), *lines]


def _whole_or_not(table: Table, name: str, how: Written, dtype: pl.DataType) -> pl.DataType:
    """The type of whole numbers, unless a later part has a fraction."""
    for part in table.column_parts(name):
        numbers = drop_words(part, how.words, numbers=True)
        if _as_numbers(numbers, how, dtype).null_count() > numbers.null_count():
            return pl.Float64()
    return dtype


def _convert(
    column: pl.Series, how: Written, dtype: pl.DataType, gaps: Gaps | None = None, start: int = 0
) -> pl.Series:
    """A part as the sample was read; `start` is the number of its first row."""
    if column.dtype != pl.String or dtype == pl.String:
        return drop_words(column, how.words, gaps, numbers=False)
    texts = drop_words(column, how.words, gaps, numbers=True)
    values = cast_truths(texts) if dtype == pl.Boolean else _as_numbers(texts, how, dtype)
    lost = texts.is_not_null() & (
        values.is_null() if values.dtype == dtype else pl.repeat(True, texts.len(), eager=True)
    )
    if lost.any():
        place = int(lost.arg_true()[0])
        message = (
            f"the column '{column.name}' holds {'truths' if dtype == pl.Boolean else 'numbers'} in "
            f"its first rows, and {shorten(repr(texts[place]))} in row {start + place}: correct it "
            "in the file, or say what the column is"
        )
        allowed = ("categorical", "text", "exclude")
        raise UserError(Problem(message, f"prepare.columns.{column.name}", allowed=allowed))
    return drop_words(values, how.words, gaps, numbers=True)


def _as_numbers(texts: pl.Series, how: Written, dtype: pl.DataType) -> pl.Series:
    if how.decimal is None:
        return texts.cast(dtype, strict=False)
    return read_numbers(texts, how.decimal, how.thousands, how.unit).cast(dtype, strict=False)
