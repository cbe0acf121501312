"""Remarks of a reader beside the table: damaged rows, gaps by their words."""

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stages.common.counts import counted
from stages.common.errors import shorten

if TYPE_CHECKING:
    import polars as pl

MAX_WORDS_SHOWN = 5


@dataclass(frozen=True)
class Damage:
    """A row that can't be read or used: its number in the file from 0, its key, where, and why.

    `column` is None where no single one is at fault: a column may have the empty name.
    """

    row: int
    reason: str
    column: str | None = None
    key: object = None


@dataclass
class Noticed:
    """Collects, part by part, what a person should know of a file that was read all the same.

    `gaps` counts by column and word what was taken as 'no value' though a word stands there,
    `unnamed` by column the rows of JSON that do not name it.
    `expected` are names of columns that are asked for: they tell a header from a row of values.
    `separators` are those that divide the columns of its files.
    """

    remarks: list[str] = field(default_factory=list)
    gaps: Counter[tuple[str, str]] = field(default_factory=Counter)
    unnamed: Counter[str] = field(default_factory=Counter)
    expected: Collection[str] = ()
    separators: set[str] = field(default_factory=set)

    def add_infinite(self, name: str, values: "pl.Series") -> None:
        """Count the infinities and NaN among `values`, which no model computes with."""
        import polars as pl

        if values.dtype == pl.String:
            values = values.cast(pl.Float64, strict=False)
        if values.dtype.is_float():
            found = {"inf": values == math.inf, "-inf": values == -math.inf, "NaN": values.is_nan()}
            for word, is_here in found.items():
                if count := int(is_here.sum()):
                    self.gaps[name, word] += count

    def lines(self) -> list[str]:
        """A line for each thing to know."""
        words: dict[str, list[str]] = {}
        for (name, word), count in sorted(self.gaps.items()):
            words.setdefault(name, []).append(f"{count} '{shorten(word)}'")
        lines = [f"note: {remark}" for remark in self.remarks]
        for name, found in words.items():
            rest = len(found) - MAX_WORDS_SHOWN
            shown = ", ".join(found[:MAX_WORDS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
            lines.append(f"note: '{name}' holds {shown}: taken as gaps")
        for name, count in sorted(self.unnamed.items()):
            lines.append(f"note: '{name}' is not named in {counted(count, 'row')}: taken as gaps")
        return lines


def damage_message(path: Path, damaged: list[Damage]) -> str:
    """One line that says which rows of the file are none, and why."""
    reasons = "; ".join(damage.reason for damage in damaged[:3])
    if len(damaged) == 1:
        return f"cannot read {path}: {reasons}; correct it in the file"
    rest = f"; and {len(damaged) - 3:,} more" if len(damaged) > 3 else ""
    return (
        f"cannot read {path}: {len(damaged):,} lines are damaged: {reasons}{rest}; "
        "correct them in the file"
    )
