"""The rows by which it is judged what columns are.

Of a table in memory: all. Of a long one: the first 48 MiB of it, and rows from anywhere that could
change the judgement: words for gaps, texts among numbers, extreme numbers. Types, gaps, classes and
keys are those of all rows, and every value is held to the judgement when it is encoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from stages.features.numbers import Rows
from stages.features.spelling import word_numbers
from stages.prepare.columns.doubts import GAPS, SENTINELS
from stages.prepare.table.table import Table

SAMPLE_BYTES = 48 << 20
# Of each column and each value that could change the judgement so many rows are taken.
NUM_OUTLIERS = 3


@dataclass(frozen=True)
class Sample:
    """Some rows or all of a table; `rows` (rows,) are their numbers in its source."""

    table: pl.DataFrame
    rows: Rows


def take_sample(table: Table, words: list[str]) -> Sample:
    """The rows to judge a table by; `words` stand for gaps, beside those that tables use for it."""
    if table.is_whole:
        return Sample(*next(table.numbered_parts(table.columns)))
    seen: list[pl.DataFrame] = []
    rows: list[Rows] = []
    num_bytes, outliers = 0, _OutlierRows(words)
    for part, numbers in table.numbered_parts(table.columns):
        places = outliers.find(part)
        if num_bytes < SAMPLE_BYTES:
            places = np.arange(part.height)
            num_bytes += int(part.estimated_size())
        seen.append(part[places])
        rows.append(numbers[places])
    return Sample(pl.concat(seen), np.concatenate(rows))


class _OutlierRows:
    """Finds the first few rows with a word for gaps, a text among numbers, or an extreme number."""

    def __init__(self, words: list[str]) -> None:
        self._words = pl.Series([*GAPS, *(word.lower() for word in words)], dtype=pl.String)
        self._numbers = pl.Series([float(n) for n in SENTINELS] + word_numbers(words))
        self._counts: dict[tuple[str, object], int] = {}
        self._low: dict[str, float] = {}
        self._high: dict[str, float] = {}
        # Of columns of texts: the different values of each part so far that are numbers, less those
        # that are not.
        self._numbers_minus_texts: dict[str, int] = {}

    def find(self, part: pl.DataFrame) -> Rows:
        """The places of such rows in a part, ascending."""
        found: list[int] = []
        for column in part.iter_columns():
            if column.dtype == pl.String:
                found += self._in_texts(column)
            elif column.dtype.is_numeric():
                found += self._in_numbers(column)
        return np.unique(np.array(found, np.int64))

    def _in_texts(self, column: pl.Series) -> Iterator[int]:
        different = column.unique().drop_nulls()
        lower = different.str.to_lowercase()
        yield from self._first(column, different.filter(lower.is_in(self._words.implode())))
        are_numbers = different.cast(pl.Float64, strict=False).is_not_null()
        balance = self._numbers_minus_texts.get(column.name, 0)
        self._numbers_minus_texts[column.name] = (
            balance + int(are_numbers.sum()) - int((~are_numbers).sum())
        )
        strays = different.filter(~are_numbers if balance >= 0 else are_numbers)
        if strays.len() <= len(different) // 2:
            yield from self._first(column, strays.sort().head(NUM_OUTLIERS))

    def _in_numbers(self, column: pl.Series) -> Iterator[int]:
        values = column.cast(pl.Float64)
        low, high = values.min(), values.max()
        if low is None or high is None:
            return
        assert isinstance(low, float)
        assert isinstance(high, float)
        if low < self._low.get(column.name, np.inf):
            self._low[column.name] = low
            yield values.arg_min() or 0
        if high > self._high.get(column.name, -np.inf):
            self._high[column.name] = high
            yield values.arg_max() or 0
        is_word = values.is_in(self._numbers.implode())
        if is_word.any():
            yield from self._first(values, values.filter(is_word).unique())

    def _first(self, column: pl.Series, values: pl.Series) -> Iterator[int]:
        for value in values:
            key = column.name, value
            left = NUM_OUTLIERS - self._counts.get(key, 0)
            if left > 0:
                places = (column == value).arg_true().head(left).to_list()
                self._counts[key] = self._counts.get(key, 0) + len(places)
                yield from places
