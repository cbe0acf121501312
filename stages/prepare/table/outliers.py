"""Rows of a long table that could change what a column is taken for, wherever they stand.

Those are the first few rows with a word for gaps, a text among numbers, or an extreme number. Each
part is looked at by itself; which of its rows are new is decided in the order of the parts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from stages.features.numbers import Rows
from stages.features.spelling import word_numbers
from stages.prepare.columns.looks import GAPS, SENTINELS
from stages.prepare.table.table import Shard

# Of each column and each value that could change the judgement so many rows are taken.
NUM_OUTLIERS = 3

# A value, and the places of the first rows of a part that have it.
Found = list[tuple[object, list[int]]]


@dataclass(frozen=True)
class Signs:
    """The words that stand for a gap, in small letters, and the numbers that do."""

    words: list[str]
    numbers: list[float]

    @classmethod
    def of(cls, words: list[str]) -> "Signs":
        """Those that tables use, and `words`."""
        texts = [*GAPS, *(word.lower() for word in words)]
        return cls(texts, [float(n) for n in SENTINELS] + word_numbers(words))


@dataclass(frozen=True)
class Texts:
    """A column of texts in a part: the words for gaps, and how many values are numbers or not.

    `among_numbers` are the first texts that are none, `among_texts` the first numbers, where they
    are at most half of the values.
    """

    words: Found
    num_numbers: int
    num_others: int
    among_numbers: Found
    among_texts: Found


@dataclass(frozen=True)
class Numbers:
    """A column of numbers in a part: its ends with their places, and the numbers for gaps."""

    low: tuple[float, int]
    high: tuple[float, int]
    words: Found


@dataclass(frozen=True)
class PartLook:
    """A part: its columns, and the rows that may be taken, by their places and numbers (rows,)."""

    columns: Mapping[str, Texts | Numbers]
    places: Rows
    rows: pl.DataFrame
    numbers: Rows


def look_for_outliers(signs: Signs, names: Sequence[str], shard: Shard) -> PartLook:
    """Find the rows of a part that may be taken."""
    part, numbers = shard.read(names)
    columns: dict[str, Texts | Numbers] = {}
    for column in part.iter_columns():
        look: Texts | Numbers | None = None
        if column.dtype == pl.String:
            look = _look_at_texts(column, signs.words)
        elif column.dtype.is_numeric():
            look = _look_at_numbers(column, signs.numbers)
        if look is not None:
            columns[column.name] = look
    every = [place for look in columns.values() for place in _places(look)]
    places = np.unique(np.array(every, np.int64))
    return PartLook(columns, places, part[places], numbers[places])


def _look_at_texts(column: pl.Series, words: list[str]) -> Texts:
    different = column.unique().drop_nulls()
    is_word = different.str.to_lowercase().is_in(pl.Series(words, dtype=pl.String).implode())
    is_number = different.cast(pl.Float64, strict=False).is_not_null()
    count = int(is_number.sum())
    return Texts(
        _first(column, different.filter(is_word)),
        count,
        len(different) - count,
        _strays(column, different, ~is_number),
        _strays(column, different, is_number),
    )


def _strays(column: pl.Series, different: pl.Series, is_stray: pl.Series) -> Found:
    strays = different.filter(is_stray)
    if strays.len() > len(different) // 2:
        return []
    return _first(column, strays.sort().head(NUM_OUTLIERS))


def _look_at_numbers(column: pl.Series, words: list[float]) -> Numbers | None:
    values = column.cast(pl.Float64)
    low, high = values.min(), values.max()
    if low is None or high is None:
        return None
    assert isinstance(low, float)
    assert isinstance(high, float)
    is_word = values.is_in(pl.Series(words, dtype=pl.Float64).implode())
    found = _first(values, values.filter(is_word).unique()) if is_word.any() else []
    return Numbers((low, values.arg_min() or 0), (high, values.arg_max() or 0), found)


def _first(column: pl.Series, values: pl.Series) -> Found:
    return [(value, (column == value).arg_true().head(NUM_OUTLIERS).to_list()) for value in values]


def _places(look: Texts | Numbers) -> Iterator[int]:
    if isinstance(look, Numbers):
        yield from (look.low[1], look.high[1])
        found = look.words
    else:
        found = [*look.words, *look.among_numbers, *look.among_texts]
    for _, places in found:
        yield from places


@dataclass
class Outliers:
    """Chooses the rows of each part that parts before it do not make superfluous."""

    counts: dict[tuple[str, object], int] = field(default_factory=dict)
    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    # Of columns of texts: the different values of each part so far that are numbers, less those
    # that are not.
    numbers_minus_texts: dict[str, int] = field(default_factory=dict)

    def choose(self, columns: Mapping[str, Texts | Numbers]) -> Rows:
        """The places of such rows in the next part, ascending."""
        found: list[int] = []
        for name, look in columns.items():
            if isinstance(look, Texts):
                found += self._in_texts(name, look)
            else:
                found += self._in_numbers(name, look)
        return np.unique(np.array(found, np.int64))

    def _in_texts(self, name: str, look: Texts) -> Iterator[int]:
        yield from self._new(name, look.words)
        balance = self.numbers_minus_texts.get(name, 0) + look.num_numbers - look.num_others
        self.numbers_minus_texts[name] = balance
        yield from self._new(name, look.among_numbers if balance >= 0 else look.among_texts)

    def _in_numbers(self, name: str, look: Numbers) -> Iterator[int]:
        if look.low[0] < self.low.get(name, np.inf):
            self.low[name], place = look.low
            yield place
        if look.high[0] > self.high.get(name, -np.inf):
            self.high[name], place = look.high
            yield place
        yield from self._new(name, look.words)

    def _new(self, name: str, values: Found) -> Iterator[int]:
        for value, places in values:
            key = name, value
            left = NUM_OUTLIERS - self.counts.get(key, 0)
            if left > 0:
                self.counts[key] = self.counts.get(key, 0) + len(places[:left])
                yield from places[:left]
