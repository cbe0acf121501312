"""Notes on new rows that could be predicted all the same: gaps, unknown words, drift, equal keys.

A column of numbers drifts when the mean of the new rows lies more than 0.25 of the training's
standard deviation from the training's mean, and by more than four standard errors, so that few
rows alone are no drift. Its spread does when the deviation is 1.5 times that of the training, or
less than its 1.5th part, in 100 rows or more. A column of categories drifts when more than 5 % of
the rows hold a value that training has not seen. Images are looked at channel by channel. How
often each known category and each truth occurs is not compared: training keeps no record of it.
The limits stand in `stages/features/drift.py`.
"""

from dataclasses import dataclass, field

import polars as pl

from stages.common.counts import counted
from stages.features.columns import MAX_CATEGORIES
from stages.features.drift import MAX_UNSEEN, Sums
from stages.features.kind import kind_of
from stages.features.numbers import take_column
from stages.features.schema import CODES, Array, Schema, Statistics

NUM_SHOWN = 5
# More are only counted: what is kept must not grow with the file.
MAX_KEPT = 1000
MAX_KEYS = 1_000_000


@dataclass
class RepeatedKeys:
    """The keys of the first million rows, to tell those that name several."""

    num_rows: int = 0
    parts: list[pl.Series] = field(default_factory=list)

    def add(self, keys: pl.Series) -> None:
        """Take in the keys of rows that were predicted."""
        kept = keys.head(MAX_KEYS - self.num_rows)
        self.num_rows += kept.len()
        self.parts += [kept] if kept.len() else []

    def lines(self) -> list[str]:
        """A line where a key names several rows."""
        if not self.parts:
            return []
        keys = pl.concat(self.parts)
        repeated = keys.filter(keys.is_duplicated()).unique(maintain_order=True)
        if not repeated.len():
            return []
        number = f"{repeated.len():,} keys name" if repeated.len() > 1 else "a key names"
        shown = ", ".join(str(value) for value in repeated.head(NUM_SHOWN))
        return [f"note: {number} more than one row, each of which is predicted: {shown}"]


@dataclass
class Notes:
    """Collects, chunk by chunk, what `lines` then says of all the rows together."""

    schema: Schema
    statistics: Statistics
    num_rows: int = 0
    gaps: dict[str, int] = field(default_factory=dict)
    sums: dict[str, list[Sums]] = field(default_factory=dict)
    unseen: dict[str, set[str]] = field(default_factory=dict)
    unseen_rows: dict[str, int] = field(default_factory=dict)
    sums_of: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)

    def add(self, table: pl.DataFrame, arrays: dict[str, Array]) -> None:
        """Take in rows that were encoded, with their arrays."""
        self.num_rows += table.height
        places = self.schema.places()
        for feature in self.schema.features:
            name, kind = feature.name, kind_of(feature.kind)
            encoded = take_column(feature, places.get(name), arrays)
            found = kind.observe(feature, table[name], encoded, self.statistics.of(feature))
            self.gaps[name] = self.gaps.get(name, 0) + found.gaps
            self.unknown[name] = self.unknown.get(name, 0) + found.unknown
            self.sums_of[name] = f", {found.of}" if found.of else ""
            sums = self.sums.setdefault(name, [Sums() for _ in found.sums])
            for own, other in zip(sums, found.sums, strict=True):
                own.merge(other)
            if found.unseen is not None:
                self._add_unseen(name, found.unseen)

    def _add_unseen(self, name: str, new: pl.Series) -> None:
        self.unseen_rows[name] = self.unseen_rows.get(name, 0) + new.len()
        kept = self.unseen.setdefault(name, set())
        kept.update(new.unique().sort().head(MAX_KEPT - len(kept)))

    def merge(self, after: "Notes") -> None:
        """Take in the notes of rows that follow: as if they had been added here."""
        self.num_rows += after.num_rows
        self.sums_of |= after.sums_of
        for counts, others in ((self.gaps, after.gaps), (self.unknown, after.unknown)):
            for name, count in others.items():
                counts[name] = counts.get(name, 0) + count
        for name, found in after.sums.items():
            sums = self.sums.setdefault(name, [Sums() for _ in found])
            for own, other in zip(sums, found, strict=True):
                own.merge(other)
        for name, count in after.unseen_rows.items():
            self.unseen_rows[name] = self.unseen_rows.get(name, 0) + count
            kept = self.unseen.setdefault(name, set())
            kept.update(sorted(after.unseen[name])[: MAX_KEPT - len(kept)])

    def lines(self) -> list[str]:
        """A line for each thing to know, in the order of the columns."""
        lines = []
        for feature in self.schema.features:
            name = feature.name
            if gaps := 0 if feature.missing else self.gaps.get(name, 0):
                taken = "a value unseen in training" if feature.kind in CODES else "the train mean"
                lines.append(f"note: '{name}' is empty in {counted(gaps, 'row')}: taken as {taken}")
            if rows := self.unseen_rows.get(name, 0):
                values = sorted(self.unseen[name])
                many = f"{len(values)}" + (" or more" if len(values) == MAX_KEPT else "")
                shown = ", ".join(repr(text) for text in values[:NUM_SHOWN])
                noun = "value" if len(values) == 1 else "values"
                # With so many categories, train has rare values as well.
                rare = len(feature.categories or []) >= MAX_CATEGORIES - 1
                drifted = rows > MAX_UNSEEN * self.num_rows and not rare
                word = "drift" if drifted else "note"
                unseen = "rare or unseen in training" if rare else "unseen in training"
                lines.append(
                    f"{word}: '{name}' has {many} {noun} {unseen}, in {rows} of "
                    f"{self.num_rows} rows: {shown}"
                )
            if rows := self.unknown.get(name, 0):
                lines.append(
                    f"note: '{name}' has no known word in {rows} of {self.num_rows} rows: a model "
                    "can say little of these texts"
                )
            rows = self.num_rows - self.gaps.get(name, 0)
            for channel, sums in enumerate(self.sums.get(name, [])):
                where = f", channel {channel}" if feature.is_array else self.sums_of[name]
                moments = self.statistics.of(feature)[channel]
                lines += [f"drift: '{name}'{where}: {said}" for said in sums.drift(rows, moments)]
        return lines
