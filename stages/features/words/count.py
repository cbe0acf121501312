"""The words of a column counted part by part: how many rows hold each, how long the texts are.

    counted = merge(count_words(part, longest=512) for part in parts)

The column may be divided anywhere: what is merged is what the whole gives. Memory grows with the
number of different words alone, by 70 to 130 bytes each. Of more than MAX_SEEN the rarest so far
are forgotten, so that the half is left; `missed` says how many rows a word may have lost by that,
and a word that more rows hold than that is there in any case.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from stages.features.words.split import Numbers, cut, portions

if TYPE_CHECKING:
    import polars as pl

MAX_SEEN: Final = 10_000_000
# Words of parts wait for the sum until they are as many, or as many as the sum has; and so many
# are summed at once.
WAITING, AT_ONCE = 500_000, 1_000_000


@dataclass(frozen=True)
class Counted:
    """Words and the number of `rows` that hold each, in no order, and the texts by their length.

    `lengths` (longest + 1,) int64: texts of no word, of one, and so on; of `longest` and more.
    """

    words: "pl.DataFrame"
    lengths: Numbers
    missed: int = 0

    def most_frequent(self, min_rows: int, number: int) -> list[str]:
        """Words that so many rows hold, the most frequent first, of equal ones by their letters."""
        often = self.words.filter(self.words["rows"] >= min_rows)
        return often.sort("rows", "word", descending=[True, False])["word"].head(number).to_list()

    def length(self, share: float) -> int:
        """The length that at least this share of the texts does not exceed.

        As np.quantile(…, method="higher") of the lengths of all.
        """
        place = math.ceil((int(self.lengths.sum()) - 1) * share)
        return int(np.searchsorted(np.cumsum(self.lengths), place, side="right"))


def count_words(texts: "pl.Series", longest: int) -> Counted:
    """Count the words of texts without nulls."""
    return merge(_count(part, longest) for part in portions(texts))


def _count(texts: "pl.Series", longest: int) -> Counted:
    words = cut(texts).alias("word")
    lengths = np.minimum(words.list.len().to_numpy(), longest)
    held = words.list.unique().explode(empty_as_null=False)
    return Counted(held.value_counts(name="rows"), np.bincount(lengths, minlength=longest + 1))


def merge(parts: Iterable[Counted], max_seen: int = MAX_SEEN) -> Counted:
    """Add up the counts of parts, at least one, that have the same `longest`."""
    waiting: list[pl.DataFrame] = []
    lengths, seen, missed = np.zeros(1, np.int64), 0, 0
    for part in parts:
        lengths, missed = lengths + part.lengths, missed + part.missed
        waiting.append(part.words)
        if sum(words.height for words in waiting) > max(WAITING, 2 * seen):
            words, lost = _forget(_add(waiting), max_seen)
            waiting, seen, missed = [words], words.height, missed + lost
    return Counted(_add(waiting), lengths, missed)


def _add(parts: "list[pl.DataFrame]") -> "pl.DataFrame":
    """The sum of counts. Words fall into groups, by a hash, that are added up one by one."""
    import polars as pl

    words, rows = pl.concat(parts), pl.col("rows").sum()
    num = words.height // AT_ONCE + 1
    if len(parts) == 1:
        return words
    if num == 1:
        return words.group_by("word").agg(rows)
    groups = words["word"].hash() % num
    return pl.concat(
        words.filter(groups == group).group_by("word").agg(rows) for group in range(num)
    )


def _forget(words: "pl.DataFrame", max_seen: int) -> "tuple[pl.DataFrame, int]":
    """Keep at most the half of `max_seen` words where there are more; and the most rows lost."""
    if words.height <= max_seen:
        return words, 0
    least = int(words["rows"].sort(descending=True)[max_seen // 2])
    return words.filter(words["rows"] > least), least
