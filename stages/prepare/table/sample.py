"""The rows by which it is judged what columns are.

Of a table in memory: all. Of a long one: the first 48 MiB of it, and rows from anywhere that could
change the judgement: words for gaps, texts among numbers, extreme numbers. Types, gaps, classes and
keys are those of all rows, and every value is held to the judgement when it is encoded.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from stages.features.numbers import Rows
from stages.parallel.mapper import Local, Mapper
from stages.prepare.table.outliers import Outliers, Signs, look_for_outliers
from stages.prepare.table.table import Table, mapper_for

SAMPLE_BYTES = 48 << 20


@dataclass(frozen=True)
class Sample:
    """Some rows or all of a table; `rows` (rows,) are their numbers in its source."""

    table: pl.DataFrame
    rows: Rows


def take_sample(table: Table, words: list[str], mapper: Mapper | None = None) -> Sample:
    """The rows to judge a table by; `words` stand for gaps, beside those that tables use for it."""
    if table.is_whole:
        return Sample(*next(table.numbered_parts(table.columns)))
    seen: list[pl.DataFrame] = []
    rows: list[Rows] = []
    num_bytes, outliers = 0, Outliers()
    shards = list(table.each_part())
    find = partial(look_for_outliers, Signs.of(words), table.columns)
    found = mapper_for(table, mapper or Local()).map(find, shards)
    for shard, part in zip(shards, found, strict=True):
        places = outliers.choose(part.columns)
        if num_bytes < SAMPLE_BYTES:
            own, numbers = shard.read(table.columns)
            num_bytes += int(own.estimated_size())
        else:
            kept = np.searchsorted(part.places, places)
            own, numbers = part.rows[kept], part.numbers[kept]
        seen.append(own)
        rows.append(numbers)
    return Sample(pl.concat(seen), np.concatenate(rows))
